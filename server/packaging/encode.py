"""Base and new weights -> an update package.

Two ways lead here. `build_package` starts from two weights files and fits the method's parameters
to their difference. A refinement has parameters already: `code_matrices` codes them, the caller
re-estimates BatchNorm on what they decode to, and `finish` adds all the other tensors. Either way
the package is decoded again by the device's own loop before anybody sees it.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from server.packaging import gate
from server.packaging.replacing import replacing
from server.packaging.sent import UNCHANGED, Sent, is_same, send_elements, send_lossless, send_raw
from shared import coding, methods
from shared.decode import VARIANCE_SUFFIX, decode, reconstitute
from shared.errors import BadMethod, BadResult, BadWeights, NotReproducible
from shared.methods.base import FactorisingMethod, LossyMethod, Options, Parameters, Tensor
from shared.package import DIGEST_BYTES, FORMAT, PackageHeader, PackageReader, PackageWriter
from shared.plans import Plan, TensorPlan
from shared.svd import Matrix
from shared.tensors import Array, Schema, TensorSpec, WeightsReader, to_float64

_CAUTION = 4.0
_BATCH_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class TensorReport:
    """How one tensor is sent: plan, number of symbols, the gate's disagreement in steps."""

    plan: str
    symbols: int
    disagreement: float | None


@dataclass(frozen=True)
class BuildReport:
    """What was built. Sizes in bytes, digests in hex; the count is the paper's."""

    path: Path
    size: int
    container_bytes: int
    sha256: str
    base_digest: str | None
    result_digest: str
    learnable_count: int
    tensors: dict[str, TensorReport]


class Coded:
    """Tensors of a base, coded so far; the rest stays as it is."""

    def __init__(self, base: WeightsReader, method: LossyMethod, options: Any) -> None:
        self.base, self.method, self.options = base, method, options
        self.sent: dict[str, Sent] = {}

    def weights(self, name: str) -> Matrix:
        """The base's tensor as the paper's matrix (o, i)."""
        spec = self.base.schema[name]
        return to_float64(self.base.read(name), spec.dtype).reshape(spec.matrix)

    def fit(self, spec: TensorSpec, values: Array) -> Parameters:
        """The parameters that lead to `values`; raises BadMethod where only `direct` can."""
        if self.base.schema.get(spec.name) != spec or len(spec.shape) < 2:
            raise BadMethod("not_applicable", f"{spec.name!r} has no matrix in the base")
        W, goal = self.weights(spec.name), values.reshape(spec.matrix)
        try:
            return self.method.fit(W, goal, spec.name, self.options)
        except (BadResult, np.linalg.LinAlgError) as error:
            raise BadMethod("not_applicable", f"{spec.name!r} cannot be factorised") from error

    def add(self, name: str, parameters: Parameters) -> None:
        """Code one matrix by its parameters, or directly where the method has nothing to offer.

        Raises BadWeights where a parameter is not finite, as after a refinement that diverged.
        """
        if not all(np.isfinite(values).all() for values in parameters.values()):
            raise BadWeights("not_finite", f"the update of {name!r} holds NaN or infinite values")
        spec, W = self.base.schema[name], self.weights(name)
        self.sent[name] = self._factors(spec, W, parameters) or self._directly(spec, W, parameters)

    def _directly(self, spec: TensorSpec, W: Matrix, parameters: Parameters) -> Sent:
        new = W + self.method.effect(W, parameters, spec.name, self.options)
        return send_elements(self.base, spec, new.reshape(spec.shape), self.options.bits)

    def _factors(self, spec: TensorSpec, W: Matrix, parameters: Parameters) -> Sent | None:
        """None where `direct` is as small, or the only way that every device decodes alike."""
        count = self.method.count(*spec.matrix, self.options)
        if count >= spec.size or isinstance(self.method, methods.Direct):
            return None
        try:
            return self._judged(spec, W, parameters, count, caution=1.0)
        except NotReproducible:
            with contextlib.suppress(NotReproducible, BadMethod, BadResult):
                return self._judged(spec, W, parameters, count, _CAUTION)
        except (BadMethod, BadResult):
            pass
        return None

    def _judged(
        self, spec: TensorSpec, W: Matrix, parameters: Parameters, count: int, caution: float
    ) -> Sent:
        code = self.method.code(W, parameters, spec.name, self.options, caution)
        if self.method.keeps_base and not any(s.any() for s in code.symbols):
            return UNCHANGED
        plan = TensorPlan(Plan.FACTORS, code.steps, code.params)
        if not isinstance(self.method, FactorisingMethod):
            return Sent(plan, code.symbols, count=count)
        o, i = spec.matrix
        tensor = Tensor(spec.name, o, i, self.options, code.steps, lambda: W, code.params)
        shapes = self.method.layout(tensor)
        arrays = [
            s.reshape(shape).astype(np.float64)
            for s, shape in zip(code.symbols, shapes, strict=True)
        ]
        verdict = gate.judge(self.method, W, tensor, arrays)
        plan = TensorPlan(Plan.FACTORS, code.steps, code.params, verdict.guard)
        return Sent(plan, code.symbols, count=count, disagreement=verdict.disagreement)

    def decoded(self) -> dict[str, Array]:
        """The coded tensors as a device would hold them, by name, in storage form."""
        with tempfile.TemporaryDirectory() as scratch:
            draft, out = Path(scratch) / "draft", Path(scratch) / "weights"
            header = _header(self.method, self.options, "")
            _write(header, self.base, self.base.schema, self.sent, draft, bytes(DIGEST_BYTES))
            with PackageReader(draft) as package, out.open("w+b") as file:
                reconstitute(self.base, package, file)
            with WeightsReader(out) as weights:
                return {name: weights.read(name) for name in self.sent}


def code_matrices(
    base: WeightsReader,
    parameters: Mapping[str, Parameters],
    method: LossyMethod,
    options: Options,
) -> Coded:
    """Code the matrices for which `parameters` (by tensor name) are given."""
    coded = Coded(base, method, options)
    for name, values in parameters.items():
        coded.add(name, values)
    return coded


def finish(
    coded: Coded,
    others: Mapping[str, Array],
    output: Path,
    model: str,
    schema: Schema | None = None,
    decoded: Path | None = None,
) -> BuildReport:
    """Add the tensors that are not coded yet, write the package, and decode it.

    `others` holds new values by name in the tensor's shape: real numbers, or the storage form for
    dtypes that are not floats. A tensor in neither stays as it is. `schema` is that of the result,
    the base's by default. The decoded weights are kept in `decoded` where it is given. Raises
    BadWeights.
    """
    target = coded.base.schema if schema is None else schema
    sent = dict(coded.sent)
    for name, values in others.items():
        if name not in sent:
            sent[name] = send_elements(coded.base, target[name], values, coded.options.bits)
    header = _header(coded.method, coded.options, model)
    return _finish(header, coded.base, target, sent, output, decoded)


def build_package(
    base: Path | None,
    target: Path,
    method: str,
    options: dict[str, Any],
    output: Path,
    model: str = "",
    decoded: Path | None = None,
) -> BuildReport:
    """Fit a method to two weights files and write the package.

    `base` is not needed for `full`. Raises BadMethod, BadWeights, NoSpace.
    """
    chosen = methods.get(method)
    parsed = methods.options(chosen, options)
    with contextlib.ExitStack() as files:
        new = files.enter_context(WeightsReader(target))
        _check_variances(new)
        old = files.enter_context(WeightsReader(base)) if base and chosen.needs_base else None
        if old is None and chosen.needs_base:
            raise BadMethod("not_applicable", f"{chosen.id} needs a base to start from")
        if isinstance(chosen, LossyMethod):
            assert old is not None
            sent = _fit(old, new, chosen, parsed)
        else:
            sent = {name: send_lossless(old, new, spec) for name, spec in new.schema.items()}
        return _finish(_header(chosen, parsed, model), old, new.schema, sent, output, decoded)


def _fit(
    base: WeightsReader, new: WeightsReader, method: LossyMethod, options: Any
) -> dict[str, Sent]:
    """Code every tensor of `new` by fitting the method to it."""
    coded = Coded(base, method, options)
    for name, spec in new.schema.items():
        same = base.schema.get(name) == spec
        if same and (name.endswith(_BATCH_COUNTER) or is_same(base, new, name)):
            coded.sent[name] = (
                UNCHANGED  # the counter says how long training was; no result needs it
            )
            continue
        target = new.read(name)
        if not spec.is_float or np.isinf(to_float64(target, spec.dtype)).any():
            coded.sent[name] = _send_buffer(spec, target)
            continue
        values = to_float64(target, spec.dtype)
        if not np.isfinite(values).all():
            raise BadWeights("not_finite", f"{name!r} holds NaN or infinite values")
        if same and not np.isfinite(to_float64(base.read(name), spec.dtype)).all():
            coded.sent[name] = send_raw(spec, target)  # repaired: there is nothing to add to
            continue
        try:
            coded.add(name, coded.fit(spec, values))
        except BadMethod:
            coded.sent[name] = send_elements(base, spec, values, options.bits)
    return coded.sent


def _send_buffer(spec: TensorSpec, target: Array) -> Sent:
    """Integers, or a mask of infinite values, as they are; raises BadWeights at NaN."""
    if spec.is_float and np.isnan(to_float64(target, spec.dtype)).any():
        raise BadWeights("not_finite", f"{spec.name!r} holds NaN")
    return send_raw(spec, target)


def _check_variances(weights: WeightsReader) -> None:
    """Raise BadWeights where a running variance is not positive."""
    for name, spec in weights.schema.items():
        if not (name.endswith(VARIANCE_SUFFIX) and spec.is_float):
            continue
        if not (to_float64(weights.read(name), spec.dtype) > 0).all():
            raise BadWeights("bad_variance", f"{name!r} holds a variance that is not positive")


def _header(method: methods.Method, options: Options, model: str) -> PackageHeader:
    return PackageHeader(
        format=FORMAT,
        model=model,
        method=methods.wire_id(method),
        options=options.model_dump(),
        coder=coding.DEFAULT_CODER,
        tool=f"weft {version('weft')}",
    )


def _finish(
    header: PackageHeader,
    base: WeightsReader | None,
    target: Schema,
    sent: Mapping[str, Sent],
    output: Path,
    decoded: Path | None,
) -> BuildReport:
    """Write the package twice: to learn the digest of its result, and with it; then decode it.

    After an error `output` and `decoded` are as they were.
    """
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        out = stack.enter_context(replacing(decoded or scratch / "weights"))
        made = stack.enter_context(replacing(output))
        _write(header, base, target, sent, draft := scratch / "draft", bytes(DIGEST_BYTES))
        with PackageReader(draft) as package, out.open("w+b") as file:
            digest = reconstitute(base, package, file)
        _write(header, base, target, sent, made, digest)
        with PackageReader(made) as package, out.open("w+b") as file:
            decode(base, package, file)
            size, container = package.size, package.container_bytes
            base_digest = package.base_digest
        with made.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return BuildReport(
        path=output,
        size=size,
        container_bytes=container,
        sha256=sha256,
        base_digest=base_digest.hex() if base_digest else None,
        result_digest=digest.hex(),
        learnable_count=sum(s.count for s in sent.values()),
        tensors={name: _report(sent.get(name, UNCHANGED)) for name in target},
    )


def _write(
    header: PackageHeader,
    base: WeightsReader | None,
    target: Schema,
    sent: Mapping[str, Sent],
    output: Path,
    result_digest: bytes,
) -> None:
    with tempfile.TemporaryFile() as stream, output.open("wb") as file:
        writer = PackageWriter(
            header, base.schema if base else None, target, base.digest() if base else None, stream
        )
        for name in target:
            part = sent.get(name, UNCHANGED)
            writer.add(part.plan, part.symbols)
            for chunk in part.chunks() if part.chunks else ():
                writer.add_bytes(coding.shuffle(chunk))
        writer.write(file, result_digest)


def _report(sent: Sent) -> TensorReport:
    symbols = sum(s.size for s in sent.symbols)
    return TensorReport(sent.plan.plan.name.lower(), symbols, sent.disagreement)
