"""Base + package -> new weights: the one loop that server and agent both run.

Tensor by tensor, in name order, in bounded memory. The steps:

    1. the base is the one that the package starts from, or nothing is done;
    2. plans and target schema fit each other and the base;
    3. each tensor is made and written;
    4. nothing is left over in the package;
    5. the digest of what was written is the one that the package promises.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from shared import coding, methods, prng
from shared.errors import BadPackage, BadResult
from shared.grid import Guard, Step, add, snap
from shared.methods.base import LossyMethod, RankOptions, Tensor
from shared.package import PackageReader
from shared.plans import Plan, TensorPlan
from shared.svd import Matrix
from shared.tensors import (
    CHUNK_ELEMENTS,
    STORAGE,
    Array,
    TensorSpec,
    WeightsDigest,
    has_nan,
    to_float64,
)
from shared.weights import WeightsReader, WeightsWriter

VARIANCE_SUFFIX = "running_var"

_KNOWN_KEY = 16
_KNOWN_DIGEST = "7bb8420f7bfe0d3565c4fa3d98084b443345e3f3cd48f57ef6dba7f948ccb2ab"


def decode(base: WeightsReader | None, package: PackageReader, file: BinaryIO) -> bytes:
    """Write the new weights into `file` (opened w+b, empty) and return their digest.

    Raises BadPackage before anything is written where base and package do not fit, and during the
    work where the package is damaged; BadResult where the result is not the promised one. The
    caller writes to a temporary file, removes it after an error, and makes it durable.
    """
    result = reconstitute(base, package, file)
    # 5. The promise.
    if result != package.result_digest:
        promised = package.result_digest.hex()
        raise BadResult("mismatch", f"decoded {result.hex()}, the package promises {promised}")
    return result


def reconstitute(base: WeightsReader | None, package: PackageReader, file: BinaryIO) -> bytes:
    """As `decode`, but the promised digest is not checked: for the server, which makes it."""
    decoding = Decoding(base, package)
    writer = WeightsWriter(file, decoding.target, {"weft_model": package.header.model})
    digest = WeightsDigest()
    for spec, chunks in decoding.tensors():
        digest.start(spec)
        for chunk in chunks:
            writer.write(spec.name, chunk)
            digest.update(chunk)
    return digest.digest()


def check_base(base: WeightsReader | None, package: PackageReader) -> None:
    """Raise BadPackage where `base` is not what the package starts from."""
    if package.base_digest is None:
        return
    if base is None:
        raise BadPackage("wrong_base", "the package needs the weights that it starts from")
    held = base.digest()
    if held != package.base_digest:
        wanted = package.base_digest.hex()
        raise BadPackage("wrong_base", f"the package starts from {wanted}, not from {held.hex()}")


class Decoding:
    """A decoding under way: where symbols, bytes and old elements come from.

    `target` is the schema of the result. Raises BadPackage where base and package do not fit.
    """

    def __init__(self, base: WeightsReader | None, package: PackageReader) -> None:
        # 1. The base.
        check_base(base, package)
        # 2. Plans and schema.
        self._base = base if package.base_digest is not None else None
        self._method, self._options = methods.of_package(package.header)
        self.target = package.target_schema(self._base.schema if self._base else None)
        factor_steps = self._method.steps if isinstance(self._method, LossyMethod) else 0
        self._plans = package.plans(methods.Direct.steps, factor_steps)
        self._symbols = package.symbols() if package.has_symbols else None
        self._bytes = package.bytes() if package.has_bytes else None
        for spec, plan in zip(self.target.values(), self._plans, strict=True):
            self._check(spec, plan.plan, plan.guard)

    def _check(self, spec: TensorSpec, plan: Plan, guard: Guard) -> None:
        """Only `direct` and `raw` can make a tensor that the base does not have in this form."""
        if plan in (Plan.UNCHANGED, Plan.XOR, Plan.FACTORS) and self._old(spec.name) != spec:
            raise BadPackage("wrong_schema", f"{spec.name!r} is not in the base as it should be")
        lossy = plan in (Plan.DIRECT, Plan.FACTORS)
        if lossy and (self._symbols is None or not spec.is_float):
            raise BadPackage("malformed", f"{spec.name!r} cannot be sent as symbols")
        if lossy and not isinstance(self._method, LossyMethod):
            raise BadPackage("malformed", f"{self._method.id} has no symbols")
        if guard.indices.size and guard.indices[-1] >= spec.size:
            raise BadPackage("malformed", f"{spec.name!r} has no element {guard.indices[-1]}")
        if plan in (Plan.RAW, Plan.XOR) and self._bytes is None and spec.size:
            raise BadPackage("malformed", f"{spec.name!r} should come as bytes, and none are there")

    def _old(self, name: str) -> TensorSpec | None:
        return self._base.schema.get(name) if self._base else None

    def tensors(self) -> Iterator[tuple[TensorSpec, Iterator[Array]]]:
        """Each new tensor and its flat pieces, all to be taken in this order.

        Raises BadPackage, BadResult.
        """
        # 3. Each tensor.
        for spec, plan in zip(self.target.values(), self._plans, strict=True):
            yield spec, self._chunks(spec, plan)
        # 4. Nothing left over.
        self._finish()

    def _chunks(self, spec: TensorSpec, plan: TensorPlan) -> Iterator[Array]:
        """The new tensor, flat, piece by piece."""
        made = self._lossy(spec, plan) if plan.steps else self._lossless(spec, plan.plan)
        for chunk in made:
            if spec.is_float:
                check_chunk(spec, plan.plan, chunk)
            yield chunk

    def _lossless(self, spec: TensorSpec, plan: Plan) -> Iterator[Array]:
        itemsize = STORAGE[spec.dtype].itemsize
        for start in range(0, spec.size, CHUNK_ELEMENTS):
            stop = min(start + CHUNK_ELEMENTS, spec.size)
            if plan is Plan.UNCHANGED:
                yield self._old_elements(spec, start, stop)
                continue
            assert self._bytes is not None
            sent = coding.unshuffle(self._bytes.read((stop - start) * itemsize), spec)
            if plan is Plan.XOR:
                sent = coding.xor(self._old_elements(spec, start, stop), sent)
            yield sent

    def _lossy(self, spec: TensorSpec, plan: TensorPlan) -> Iterator[Array]:
        assert self._symbols is not None
        direct = plan.plan is Plan.DIRECT
        method: Any = methods.METHODS[methods.Direct.id] if direct else self._method
        o, i = spec.matrix
        tensor = Tensor(
            name=spec.name,
            o=o,
            i=i,
            options=self._options,
            steps=plan.steps,
            weights=lambda: self._matrix(spec),
            params=plan.params,
            guard=plan.guard,
        )
        start = self._start(spec, method.from_zero)
        done = 0
        for q in method.chunks(tensor, self._symbols):
            yield add(start(done, done + q.size), spec.dtype, q, plan.steps[-1])
            done += q.size

    def _start(self, spec: TensorSpec, from_zero: bool) -> Callable[[int, int], Array]:
        """What the change is added to."""
        base = None if from_zero else self._base
        return lambda begin, end: overlap(base, spec, begin, end)

    def _old_elements(self, spec: TensorSpec, start: int, stop: int) -> Array:
        assert self._base is not None
        return self._base.read(spec.name, start, stop).reshape(-1)

    def _matrix(self, spec: TensorSpec) -> Matrix:
        """The old tensor as a float64 matrix, filled chunk by chunk to spare memory."""
        assert self._base is not None
        out = np.empty(spec.size)
        done = 0
        for chunk in self._base.chunks(spec.name):
            out[done : done + chunk.size] = to_float64(chunk, spec.dtype)
            done += chunk.size
        if not np.isfinite(out).all():
            raise BadPackage("malformed", f"{spec.name!r} is not finite and has no factors")
        return out.reshape(spec.matrix)

    def _finish(self) -> None:
        """Raise BadPackage where coded data are left."""
        for source in (self._symbols, self._bytes):
            if source is not None:
                source.finish()


def overlap(base: WeightsReader | None, spec: TensorSpec, start: int, stop: int) -> Array:
    """Elements `start:stop` of `spec`: the base's where old and new indices overlap, else zeros.

    Nothing of the size of `spec` is allocated: a package may claim any.
    """
    out = np.zeros(stop - start, STORAGE[spec.dtype])
    old = base.schema.get(spec.name) if base else None
    if not (base and old and old.dtype == spec.dtype and len(old.shape) == len(spec.shape)):
        return out
    if old == spec:
        return base.read(spec.name, start, stop).reshape(-1)
    places = np.unravel_index(np.arange(start, stop), spec.shape)
    inside = np.logical_and.reduce([p < n for p, n in zip(places, old.shape, strict=True)])
    found = np.flatnonzero(inside)
    common = np.ravel_multi_index([p[found] for p in places], old.shape)  # ascending
    done = 0
    while done < found.size:  # in pieces: old rows may be much longer than new ones
        first = int(common[done])
        end = int(np.searchsorted(common, first + CHUNK_ELEMENTS))
        piece = base.read(old.name, first, int(common[end - 1]) + 1).reshape(-1)
        out[found[done:end]] = piece[common[done:end] - first]
        done = end
    return out


def check_chunk(spec: TensorSpec, plan: Plan, chunk: Array) -> None:
    """Raise BadResult where a running variance is not positive, or bytes bring a NaN.

    Infinities may come as bytes: masks hold them. (`add` refuses to make either by symbols.)
    """
    if plan in (Plan.RAW, Plan.XOR) and has_nan(chunk, spec.dtype):
        raise BadResult("not_finite", f"{spec.name!r} would hold NaN")
    if not spec.name.endswith(VARIANCE_SUFFIX):
        return
    if not (to_float64(chunk, spec.dtype) > 0).all():
        raise BadResult("bad_variance", f"{spec.name!r} would hold a variance that is not positive")


def known_answer() -> None:
    """Decode a small change whose result is known; raises BadResult where this machine is off.

    It finds a BLAS or LAPACK that computes wrongly, and a processor that flushes subnormal numbers
    to zero. The matrix is made of integers and every change lies well inside its grid cell, so a
    sound machine cannot fail.
    """
    W = (prng.words(_KNOWN_KEY, 0, 12 * 20) >> np.uint64(60)).reshape(12, 20).astype(np.float64)
    symbols = [np.arange(12.0)[None], np.ones((12, 1)), -np.ones((1, 20))]
    steps = (Step(1, 0), Step(1, -3), Step(1, -4))
    tensor = Tensor("", 12, 20, RankOptions(rank=1), steps, lambda: W)
    change = np.concatenate(list(methods.KnowledgeAugmentation().change(W, tensor, symbols)))
    q = snap(change.reshape(-1), steps[-1], Guard())
    tiny = np.array([(1 << 23) + 1], np.uint32).view(np.float32)  # 2^-126 + 2^-149
    subnormal = add(tiny, "F32", np.array([-1]), Step(1, -126))
    found = hashlib.sha256(q.astype("<i8").tobytes() + subnormal.tobytes()).hexdigest()
    if found != _KNOWN_DIGEST:
        raise BadResult("broken_arithmetic", "a decoding with a known result came out differently")
