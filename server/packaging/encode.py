"""Base and new weights -> an update package.

Two ways lead here. `build_package` starts from two weights files and fits the method's parameters
to their difference. A refinement has parameters already: `code_matrices` codes them, the caller
re-estimates BatchNorm on what they decode to, and `finish` adds all the other tensors. Either way
the package is decoded again by the device's own loop before anybody sees it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from server.packaging.assemble import BuildReport, MakeGolden, assemble, header
from server.packaging.coded import Coded, code_matrices
from server.packaging.sent import UNCHANGED, Sent, is_same, send_elements, send_lossless, send_raw
from shared import methods
from shared.decode import VARIANCE_SUFFIX
from shared.errors import BadMethod, BadWeights
from shared.methods.base import LossyMethod
from shared.tensors import Array, Schema, TensorSpec, to_float64
from shared.weights import WeightsReader

__all__ = ["BuildReport", "Coded", "MakeGolden", "build_package", "code_matrices", "finish"]

_BATCH_COUNTER = "num_batches_tracked"


def finish(
    coded: Coded,
    others: Mapping[str, Array],
    output: Path,
    model: str,
    schema: Schema | None = None,
    decoded: Path | None = None,
    golden: MakeGolden | None = None,
    steps: Mapping[str, float] | None = None,
) -> BuildReport:
    """Add the tensors that are not coded yet, write the package, and decode it.

    `others` holds new values by name in the tensor's shape: real numbers, or the storage form for
    dtypes that are not floats. A tensor in neither stays as it is. `schema` is that of the result,
    the base's by default. The decoded weights are kept in `decoded` where it is given. `steps` are
    those of others that need not be finer. Raises BadWeights.
    """
    target = coded.base.schema if schema is None else schema
    sent = dict(coded.sent)
    for name, values in others.items():
        if name not in sent:
            step = (steps or {}).get(name, 0.0)
            sent[name] = send_elements(coded.base, target[name], values, coded.options.bits, step)
    head = header(coded.method, coded.options, model)
    return assemble(head, coded.base, target, sent, output, decoded, golden)


def build_package(
    base: Path | None,
    target: Path,
    method: str,
    options: dict[str, Any],
    output: Path,
    model: str = "",
    decoded: Path | None = None,
    golden: MakeGolden | None = None,
) -> BuildReport:
    """Fit a method to two weights files and write the package.

    `base` is not needed for `full`. Raises BadMethod, BadWeights, NoSpace, and what `golden` does.
    """
    chosen = methods.get(method)
    parsed = methods.options(chosen, options)
    with contextlib.ExitStack() as files:
        new = files.enter_context(WeightsReader(target))
        held = files.enter_context(WeightsReader(base)) if base else None
        if held is None and chosen.needs_base:
            raise BadMethod("not_applicable", f"{chosen.id} needs a base to start from")
        _check_values(held, new)
        old = held if chosen.needs_base else None
        if isinstance(chosen, LossyMethod):
            assert old is not None
            sent = _fit(old, new, chosen, parsed)
        else:
            sent = {name: send_lossless(old, new, spec) for name, spec in new.schema.items()}
        head = header(chosen, parsed, model)
        return assemble(head, old, new.schema, sent, output, decoded, golden)


def _fit(
    base: WeightsReader, new: WeightsReader, method: LossyMethod, options: Any
) -> dict[str, Sent]:
    """Code every tensor of `new` by fitting the method to it."""
    coded = Coded(base, method, options)
    for name, spec in new.schema.items():
        same = base.schema.get(name) == spec
        if same and (name.endswith(_BATCH_COUNTER) or is_same(base, new, name)):
            coded.sent[name] = UNCHANGED  # the counter tells of training; no result needs it
            continue
        target = new.read(name)
        if not spec.is_float or _is_mask(base, spec, target):
            coded.sent[name] = send_raw(spec, target)
            continue
        values = to_float64(target, spec.dtype)
        if same and not np.isfinite(to_float64(base.read(name), spec.dtype)).all():
            coded.sent[name] = send_raw(spec, target)  # repaired: there is nothing to add to
            continue
        try:
            coded.add(name, coded.fit(spec, values))
        except BadMethod:
            coded.sent[name] = send_elements(base, spec, values, options.bits)
    return coded.sent


def _check_values(base: WeightsReader | None, new: WeightsReader) -> None:
    """Raise BadWeights at NaN, at infinities where no mask is, and at variances not positive."""
    for name, spec in new.schema.items():
        if not spec.is_float:
            continue
        target = new.read(name)
        values = to_float64(target, spec.dtype)
        if name.endswith(VARIANCE_SUFFIX) and not (values > 0).all():
            raise BadWeights("bad_variance", f"{name!r} holds a variance that is not positive")
        if not (np.isfinite(values).all() or _is_mask(base, spec, target)):
            raise BadWeights("not_finite", f"{name!r} holds NaN or infinite values")


def _is_mask(base: WeightsReader | None, spec: TensorSpec, target: Array) -> bool:
    """Whether a tensor is a buffer with infinities, not weights that have diverged.

    A mask has them from the beginning: it is new, or the base has some too. It never holds NaN.
    """
    values = to_float64(target, spec.dtype)
    if np.isnan(values).any() or not np.isinf(values).any():
        return False
    if base is None or base.schema.get(spec.name) != spec:
        return True
    return bool(np.isinf(to_float64(base.read(spec.name), spec.dtype)).any())
