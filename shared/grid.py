"""Integer grids: the form in which every lossy change reaches a device.

A tensor's change is an integer array `q` and one step `k * 2^e`. The new weight is

    round_to_dtype(float64(w) + q * k * 2^e)        and the stored bits themselves where q = 0.

`q * k * 2^e` is exact in float64 (|q| < 2^30, k < 2^8), so there is one sum and one rounding, both
fixed by IEEE 754: every machine gets the same bits (design.md section 3). Real-valued changes
(`ka`, `ml`) are first snapped to the grid; elements that sit so close to a rounding boundary that
two machines could disagree are listed in a guard, with the server's decision.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shared.errors import BadMethod, BadPackage, BadResult
from shared.tensors import Array, to_float64

Q_LIMIT = 1 << 30

# Every k * 2^e with e in this range is a normal float32, so that no dtype here nor a device that
# flushes subnormals to zero can lose a step.
MIN_EXPONENT, MAX_EXPONENT = -126, 119
MAX_K = 255

# The product of two of these still has k <= MAX_K: factors of a product take them.
MAX_FACTOR_K = 15

# dtype -> (bits of the exponent, bits of the mantissa); numpy rounds to float32 by itself.
_NARROW = {"F16": (5, 10), "BF16": (8, 7)}


@dataclass(frozen=True)
class Step:
    """The grid's unit, `k * 2^e`; raises BadPackage where k or e is out of range."""

    k: int
    e: int

    def __post_init__(self) -> None:
        if not (1 <= self.k <= MAX_K and MIN_EXPONENT <= self.e <= MAX_EXPONENT):
            raise BadPackage("malformed", f"step {self.k} * 2^{self.e} is out of range")

    @property
    def value(self) -> float:
        """The step as a float64, exactly."""
        return math.ldexp(self.k, self.e)

    def pack(self) -> bytes:
        """Two bytes."""
        return struct.pack("<Bb", self.k, self.e)

    @classmethod
    def unpack(cls, data: bytes) -> Step:
        """From two bytes; raises BadPackage."""
        return cls(*struct.unpack("<Bb", data))


def step_at_least(value: float, max_k: int = MAX_K) -> Step:
    """The smallest step that is not below `value`, with k at most `max_k`.

    Raises BadMethod where `value` is beyond every step, or not a number.
    """
    if not value <= math.ldexp(max_k, MAX_EXPONENT):
        raise BadMethod("not_applicable", f"a change of {value:.1e} is beyond every grid")
    if value <= 0:
        return Step(1, MIN_EXPONENT)
    mantissa, exponent = math.frexp(value)  # value = mantissa * 2^exponent, mantissa in [1/2, 1)
    bits = max_k.bit_length()
    k, e = math.ceil(math.ldexp(mantissa, bits)), exponent - bits
    if k > max_k:
        k, e = (k + 1) // 2, e + 1
    if e < MIN_EXPONENT:
        k, e = max(1, math.ceil(math.ldexp(k, e - MIN_EXPONENT))), MIN_EXPONENT
    return Step(k, e)


def product_step(a: Step, b: Step) -> Step:
    """The step of a product of factors; raises BadMethod where no grid has it."""
    if not MIN_EXPONENT <= a.e + b.e <= MAX_EXPONENT:
        raise BadMethod("not_applicable", "the factors of this change are too small or too large")
    return Step(a.k * b.k, a.e + b.e)


def quantise(
    values: NDArray[np.float64], bits: int, max_k: int = MAX_K, least: float = 0.0
) -> tuple[NDArray[np.int64], Step]:
    """Symbols in +-(2^(bits-1) - 1) and the step that makes the largest value fit unclipped.

    The step is not below `least`. Raises BadMethod where a value is too large for any grid, or not
    finite.
    """
    top = (1 << (bits - 1)) - 1
    largest = float(np.abs(values).max(initial=0.0))
    step = step_at_least(max(largest / top, least), max_k)
    symbols = np.rint(values / step.value).astype(np.int64)
    return np.clip(symbols, -top, top), step


def add(base: Array, dtype: str, q: NDArray[np.int64], step: Step) -> Array:
    """`base + q * step` in storage form, rounded once; raises BadResult.

    `base` and `q` have the same shape. Bits stay where q is 0, so -0.0 and buffers of -inf do.
    """
    changed = q != 0
    if not changed.any():
        return base
    if max(-int(q.min()), int(q.max())) >= Q_LIMIT:
        raise BadResult("overflow", "a symbol is beyond the grid")
    with np.errstate(over="ignore", invalid="ignore"):  # checked below
        rounded = round_to(to_float64(base, dtype) + q * step.value, dtype)
    result = np.where(changed, rounded, base)
    if not np.isfinite(to_float64(result[changed], dtype)).all():
        raise BadResult("not_finite", "a decoded weight is not a finite number")
    return result


def round_to(values: NDArray[np.float64], dtype: str) -> Array:
    """Float64 to the nearest number of `dtype`, ties to even, in storage form; NaN stays NaN."""
    if dtype in _NARROW:
        bits = _round_bits(values, *_NARROW[dtype])
        return bits.view(np.float16) if dtype == "F16" else bits
    return values.astype(np.float32 if dtype == "F32" else np.float64)


def _round_bits(
    values: NDArray[np.float64], exponent_bits: int, mantissa_bits: int
) -> NDArray[np.uint16]:
    """Round to a 16-bit float by integer arithmetic alone.

    Going through float32 would round twice, and half-precision conversions differ between
    processors; integers do not.
    """
    bias = (1 << (exponent_bits - 1)) - 1
    bits = np.ascontiguousarray(values).view(np.uint64)
    sign = (bits >> 63).astype(np.uint64)
    exponent = ((bits >> 52) & 0x7FF).astype(np.int64) - 1023 + bias
    fraction = bits & ((1 << 52) - 1)
    # Below exponent 1 the result is subnormal: the implicit bit becomes explicit and shifts right.
    normal = exponent >= 1
    significand = np.where(normal, fraction, fraction | (1 << 52))
    significand |= np.where(normal, exponent, 0).astype(np.uint64) << np.uint64(52)
    shift = 52 - mantissa_bits + np.where(normal, 0, np.minimum(1 - exponent, mantissa_bits + 9))
    shift = shift.astype(np.uint64)
    one = np.uint64(1)
    half = (one << (shift - one)) - one
    # A carry out of the mantissa runs into the exponent, which is what rounding up means.
    rounded = (significand + half + ((significand >> shift) & one)) >> shift
    top = np.uint64(((1 << exponent_bits) - 1) << mantissa_bits)
    rounded = np.minimum(rounded, top)
    rounded = np.where(exponent >= (1 << exponent_bits) - 1, top, rounded)
    rounded = np.where(np.isnan(values), top | (one << np.uint64(mantissa_bits - 1)), rounded)
    return np.asarray((sign << np.uint64(15)) | rounded, dtype=np.uint16)


@dataclass(frozen=True)
class Guard:
    """Elements (ascending flat indices) whose rounding the server decided: up (1) or down (0)."""

    indices: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    up: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


def snap(
    change: NDArray[np.float64], step: Step, guard: Guard, start: int = 0
) -> NDArray[np.int64]:
    """The grid points nearest to a real-valued change; raises BadResult.

    `change` is the flat piece of the tensor that begins at element `start`.
    """
    x = change / step.value
    if not np.isfinite(x).all() or float(np.abs(x).max(initial=0.0)) >= Q_LIMIT - 1:
        raise BadResult("overflow", "a change is beyond the grid")
    q = np.rint(x).astype(np.int64)
    first, last = np.searchsorted(guard.indices, [start, start + x.size])
    inside = guard.indices[first:last] - start
    q[inside] = np.floor(x[inside]).astype(np.int64) + guard.up[first:last]
    return q
