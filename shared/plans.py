"""What the control section of a package says of each tensor: plan, steps, guard, schema."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np

from shared.errors import BadPackage
from shared.grid import Guard, Step
from shared.records import Cursor, section, varint
from shared.tensors import (
    MAX_DIMENSIONS,
    METADATA,
    STORAGE,
    Schema,
    TensorSpec,
    is_shape,
    schema_of,
)

MAX_CONTROL_BYTES = 4 * 1024 * 1024
MAX_RESULT_BYTES = 1 << 36

#: Far above what any model has; each entry takes a hundred times its bytes while it is parsed.
MAX_TENSORS = 1 << 17
MAX_GUARDED = 1 << 18


class Plan(enum.IntEnum):
    """How one tensor's new elements are made. Numbers are on the wire: never reuse one."""

    UNCHANGED = 0
    DIRECT = 1  # one symbol an element
    FACTORS = 3  # as the package's method says
    RAW = 4  # the elements themselves
    XOR = 5  # the elements xor the old ones


@dataclass(frozen=True)
class TensorPlan:
    """The plan of one tensor, with what the control section says of it."""

    plan: Plan
    steps: tuple[Step, ...] = ()
    params: bytes = b""
    guard: Guard = field(default_factory=Guard)


def pack_plans(plans: list[TensorPlan]) -> bytes:
    """A count, a byte for each plan, then the records of those that have one."""
    parts = [varint(len(plans)), bytes(p.plan for p in plans)]
    for p in plans:
        if p.plan in (Plan.DIRECT, Plan.FACTORS):
            parts.extend(step.pack() for step in p.steps)
        if p.plan is Plan.FACTORS:
            parts.extend((section(p.params), _pack_guard(p.guard)))
    return b"".join(parts)


def unpack_plans(
    plan_bytes: bytes, records: bytes, direct_steps: int, factor_steps: int
) -> list[TensorPlan]:
    """The plans, given how many steps a tensor of each kind has; raises BadPackage."""
    cursor = Cursor(records)
    plans = []
    for byte in plan_bytes:
        plan = _plan(byte)
        count = {Plan.DIRECT: direct_steps, Plan.FACTORS: factor_steps}.get(plan, 0)
        steps = tuple(Step.unpack(cursor.take(2)) for _ in range(count))
        if plan is Plan.FACTORS:
            plans.append(TensorPlan(plan, steps, cursor.section(), _unpack_guard(cursor)))
        else:
            plans.append(TensorPlan(plan, steps))
    cursor.finish()
    return plans


def _plan(byte: int) -> Plan:
    try:
        return Plan(byte)
    except ValueError as error:
        raise BadPackage("unknown_format", f"plan {byte} is not known here") from error


def _pack_guard(guard: Guard) -> bytes:
    """A count, then for each element the gap to the one before, doubled, plus its bit."""
    gaps = np.diff(guard.indices, prepend=0)
    pairs = zip(gaps.tolist(), guard.up.tolist(), strict=True)
    return varint(len(gaps)) + b"".join(varint(gap * 2 + up) for gap, up in pairs)


def _unpack_guard(cursor: Cursor) -> Guard:
    entries = [cursor.varint() for _ in range(_count(cursor, MAX_GUARDED))]
    gaps = [entry >> 1 for entry in entries]
    if 0 in gaps[1:] or sum(gaps) >= MAX_RESULT_BYTES:
        raise BadPackage("malformed", "guarded elements are out of order")
    indices = np.cumsum(np.array(gaps, np.int64))
    return Guard(indices, np.array([entry & 1 for entry in entries], np.int64))


def _count(cursor: Cursor, limit: int) -> int:
    count = cursor.varint()
    if count > limit:
        raise BadPackage("malformed", f"{count} entries do not fit")
    return count


def pack_schema(base: Schema, target: Schema) -> bytes:
    """The names dropped from `base`, then the specs that `target` has anew."""
    dropped = sorted((n for n in base if n not in target), key=str.encode)
    changed = [s for n, s in target.items() if base.get(n) != s]
    parts = [varint(len(dropped)), *(section(n.encode()) for n in dropped), varint(len(changed))]
    for spec in changed:
        parts += [section(spec.name.encode()), section(spec.dtype.encode())]
        parts += [varint(len(spec.shape)), *(varint(d) for d in spec.shape)]
    return b"".join(parts)


def apply_schema(changes: bytes | None, schema: dict[str, TensorSpec]) -> dict[str, TensorSpec]:
    """The schema after changes that `pack_schema` wrote; raises BadPackage."""
    if changes is None:
        return schema
    cursor = Cursor(changes)
    for _ in range(_count(cursor, MAX_TENSORS)):
        if schema.pop(cursor.text(), None) is None:
            raise BadPackage("wrong_schema", "a tensor to drop is not there")
    for _ in range(_count(cursor, MAX_TENSORS)):
        spec = _unpack_spec(cursor)
        schema[spec.name] = spec
    cursor.finish()
    return schema_of(schema.values())


def _unpack_spec(cursor: Cursor) -> TensorSpec:
    name, dtype, dimensions = cursor.text(), cursor.text(), cursor.varint()
    if dtype not in STORAGE:
        raise BadPackage("unknown_format", f"tensor {name!r} has dtype {dtype!r}")
    if dimensions > MAX_DIMENSIONS or name == METADATA:
        raise BadPackage("malformed", f"tensor {name!r} cannot be")
    shape = tuple(cursor.varint() for _ in range(dimensions))
    if not is_shape(shape):
        raise BadPackage("malformed", f"tensor {name!r} has an impossible shape")
    return TensorSpec(name, dtype, shape)
