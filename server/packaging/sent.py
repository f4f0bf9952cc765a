"""What a package holds of one tensor, and the tensors that need no method: direct, raw, xor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from shared import coding
from shared.decode import VARIANCE_SUFFIX, overlap
from shared.errors import BadMethod, BadWeights
from shared.grid import add, quantise, round_to
from shared.methods.base import Symbols
from shared.plans import Plan, TensorPlan
from shared.tensors import CHUNK_ELEMENTS, STORAGE, Array, TensorSpec, to_float64
from shared.weights import WeightsReader

STATISTICS = ("running_mean", VARIANCE_SUFFIX)


@dataclass(frozen=True)
class Sent:
    """One tensor's part of a package; `count` is the paper's, of learnable parameters."""

    plan: TensorPlan
    symbols: list[Symbols] = field(default_factory=list)
    chunks: Callable[[], Iterable[Array]] | None = None
    count: int = 0
    disagreement: float | None = None


UNCHANGED = Sent(TensorPlan(Plan.UNCHANGED))


def send_elements(
    base: WeightsReader | None, spec: TensorSpec, new: Array, bits: int, step: float = 0.0
) -> Sent:
    """One tensor as quantised changes where that works, else as it is.

    The grid is as fine as `bits` allow, but no finer than `step`. `new` has the tensor's shape and
    holds real numbers, or the storage form where `spec` is not a float. Raises BadWeights where a
    number is not finite and the base's was.
    """
    if not spec.is_float:
        return send_raw(spec, np.asarray(new))
    old = overlap(base, spec, 0, spec.size).reshape(spec.shape)
    new = np.asarray(new, np.float64)
    if not np.isfinite(to_float64(old, spec.dtype)).all():
        return send_raw(spec, round_to(new, spec.dtype))
    if not np.isfinite(new).all():
        raise BadWeights("not_finite", f"{spec.name!r} holds NaN or infinite values")
    change = new - to_float64(old, spec.dtype)
    kept = base is not None and base.schema.get(spec.name) == spec
    if not change.any() and kept:
        return UNCHANGED
    try:
        q, grid = quantise(change.reshape(-1), bits, least=step)
    except BadMethod:  # doubles beyond every grid
        return send_raw(spec, round_to(new, spec.dtype))
    if change.any() and not q.any():  # too small to be felt, or for any grid: subnormal weights
        return UNCHANGED if step and kept else send_raw(spec, round_to(new, spec.dtype))
    if spec.name.endswith(VARIANCE_SUFFIX):
        decoded = add(old.reshape(-1), spec.dtype, q, grid)
        if not (to_float64(decoded, spec.dtype) > 0).all():
            return send_raw(spec, round_to(new, spec.dtype))
    count = 0 if spec.name.endswith(STATISTICS) else spec.size
    return Sent(TensorPlan(Plan.DIRECT, (grid,)), [q], count=count)


def send_raw(spec: TensorSpec, elements: Array) -> Sent:
    """One tensor as it is, given in storage form."""
    flat = np.asarray(elements, STORAGE[spec.dtype]).reshape(-1)
    pieces = range(0, spec.size, CHUNK_ELEMENTS)
    return _as_bytes(spec, Plan.RAW, lambda: (flat[s : s + CHUNK_ELEMENTS] for s in pieces))


def send_lossless(base: WeightsReader | None, new: WeightsReader, spec: TensorSpec) -> Sent:
    """One tensor to the bit: unchanged, or xor the base's, or as it is."""
    name = spec.name
    if base is None or base.schema.get(name) != spec:
        return _as_bytes(spec, Plan.RAW, lambda: new.chunks(name))
    if is_same(base, new, name):
        return UNCHANGED

    def difference() -> Iterator[Array]:
        for old, fresh in zip(base.chunks(name), new.chunks(name), strict=True):
            yield coding.xor(old, fresh)

    return _as_bytes(spec, Plan.XOR, difference)


def is_same(base: WeightsReader, new: WeightsReader, name: str) -> bool:
    """Whether both files hold the same bits under a name."""
    pairs = zip(base.chunks(name), new.chunks(name), strict=True)
    return all(np.array_equal(a.view(np.uint8), b.view(np.uint8)) for a, b in pairs)


def _as_bytes(spec: TensorSpec, plan: Plan, chunks: Callable[[], Iterable[Array]]) -> Sent:
    count = spec.size if spec.is_float and not spec.name.endswith(STATISTICS) else 0
    return Sent(TensorPlan(plan), chunks=chunks, count=count)
