"""Checks of uploaded weights, tensor by tensor in bounded memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import BadWeights
from shared.tensors import Schema, TensorSpec, WeightsDigest, schema_digest, to_float64
from shared.weights import WeightsReader

#: A running variance is divided by: it must be positive at both ends (design, section 3).
VARIANCE = "running_var"


@dataclass(frozen=True)
class Checked:
    """What is known of a weights file after all checks; digests in hex."""

    schema: dict[str, Any]
    schema_digest: str
    weights_digest: str


def learnable_by_suffix(schema: Schema, buffers: Collection[str]) -> frozenset[str]:
    """Float tensors whose names end in none of `buffers`."""
    ends = tuple(buffers)
    return frozenset(n for n, s in schema.items() if s.is_float and not n.endswith(ends))


def check(path: Path, learnable: Collection[str] | None, buffers: Collection[str]) -> Checked:
    """Read every tensor once: sound values, digests.

    `learnable` names the parameters where the architecture is known; else `buffers` tells what is
    none. Raises BadWeights `malformed`, `schema_mismatch`, `not_finite`, `bad_variance`.
    """
    with WeightsReader(path) as reader:
        if learnable is None:
            learnable = learnable_by_suffix(reader.schema, buffers)
        _check_names(reader.schema, learnable)
        digest = WeightsDigest()
        for name, spec in reader.schema.items():
            digest.start(spec)
            for chunk in reader.chunks(name):
                digest.update(chunk)
                if spec.is_float:
                    _check_values(spec, to_float64(chunk, spec.dtype), name in learnable)
        return Checked(
            schema=as_json(reader.schema),
            schema_digest=schema_digest(reader.schema).hex(),
            weights_digest=digest.digest().hex(),
        )


def _check_names(schema: Schema, learnable: Collection[str]) -> None:
    missing = sorted(set(learnable) - schema.keys())
    if missing:
        raise BadWeights(
            "schema_mismatch", f"{len(missing)} parameters are missing, first {missing[0]!r}"
        )


def _check_values(spec: TensorSpec, values: np.ndarray[Any, Any], is_learnable: bool) -> None:
    name = spec.name
    if is_learnable and not np.isfinite(values).all():
        raise BadWeights("not_finite", f"the tensor {name!r} holds NaN or infinite numbers")
    if name.rpartition(".")[2] == VARIANCE and not ((values > 0) & np.isfinite(values)).all():
        raise BadWeights("bad_variance", f"the running variance {name!r} is not positive")


def as_json(schema: Schema) -> dict[str, Any]:
    """A schema as it is stored: name -> {"dtype", "shape"}."""
    return {n: {"dtype": s.dtype, "shape": list(s.shape)} for n, s in schema.items()}


def explain_mismatch(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """In one line, how two stored schemas differ."""
    missing = sorted(wanted.keys() - found.keys())
    added = sorted(found.keys() - wanted.keys())
    changed = sorted(n for n in wanted.keys() & found.keys() if wanted[n] != found[n])
    parts = [f"missing {missing[:3]}"] if missing else []
    parts += [f"unexpected {added[:3]}"] if added else []
    parts += [f"{n!r} is {found[n]}, not {wanted[n]}" for n in changed[:3]]
    total = len(missing) + len(added) + len(changed)
    return f"{total} tensors differ from the model's schema: " + "; ".join(parts)
