"""Grids: steps, rounding to narrow floats, bits that stay, snapping under a guard."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared.errors import BadMethod, BadPackage, BadResult
from shared.grid import (
    MAX_EXPONENT,
    MAX_FACTOR_K,
    MIN_EXPONENT,
    Q_LIMIT,
    Guard,
    Step,
    add,
    product_step,
    quantise,
    round_to,
    snap,
    step_at_least,
)
from shared.tensors import STORAGE, to_float64

TORCH = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
ONE = Step(1, 0)


def nearest_even(value: float, exponent_bits: int, mantissa_bits: int) -> Fraction:
    """What IEEE 754 says, in rational arithmetic; None of it is shared with the code."""
    bias = (1 << (exponent_bits - 1)) - 1
    exponent = max(math.frexp(value)[1] - 1, 1 - bias) if value else 1 - bias
    unit = Fraction(2) ** (exponent - mantissa_bits)
    return round(Fraction(value) / unit) * unit  # round() of a Fraction takes ties to even


def bits_of(values: np.ndarray[Any, Any]) -> list[int]:
    return values.view(np.uint16).tolist()


def test_a_step_survives_its_two_bytes() -> None:
    for step in (Step(1, MIN_EXPONENT), Step(255, MAX_EXPONENT), Step(77, -3)):
        assert Step.unpack(step.pack()) == step
        assert len(step.pack()) == 2
        assert Fraction(step.value) == step.k * Fraction(2) ** step.e


@pytest.mark.parametrize(("k", "e"), [(0, 0), (256, 0), (1, -127), (1, 120), (-1, 0)])
def test_a_step_out_of_range_is_refused(k: int, e: int) -> None:
    with pytest.raises(BadPackage, match=r"package\.malformed"):
        Step(k, e)


def test_every_step_is_a_normal_number_of_float32() -> None:
    smallest, largest = Step(1, MIN_EXPONENT).value, Step(255, MAX_EXPONENT).value
    assert smallest >= np.finfo(np.float32).smallest_normal
    assert largest <= np.finfo(np.float32).max


@given(st.floats(2.0**-140, 2.0**122), st.sampled_from([255, MAX_FACTOR_K]))
def test_the_chosen_step_is_the_smallest_that_is_not_below(value: float, max_k: int) -> None:
    step = step_at_least(value, max_k)
    assert step.value >= value
    assert step.k <= max_k
    if value > 2.0 ** (MIN_EXPONENT + 8):  # below, k has too few steps to choose from
        assert step.value <= value * (1 + 2 / max_k)


@pytest.mark.parametrize("value", [0.0, -0.0, 5e-324])
def test_nothing_is_finer_than_the_finest_step(value: float) -> None:
    assert step_at_least(value) == Step(1, MIN_EXPONENT)


@pytest.mark.parametrize("value", [2.0**128, 1e300, math.inf, math.nan])
def test_a_change_that_no_step_reaches_is_refused(value: float) -> None:
    with pytest.raises(BadMethod, match=r"method\.not_applicable"):
        step_at_least(value)


def test_the_step_of_a_product_is_the_product_of_the_steps() -> None:
    assert product_step(Step(15, -3), Step(13, -4)).value == Step(15, -3).value * Step(13, -4).value
    for a, b in ((Step(1, -100), Step(1, -100)), (Step(1, 100), Step(1, 100))):
        with pytest.raises(BadMethod, match=r"method\.not_applicable"):
            product_step(a, b)


@given(
    hnp.arrays(np.float64, st.integers(0, 40), elements=st.floats(-1e30, 1e30)),
    st.integers(2, 16),
)
def test_quantised_values_are_within_half_a_step(values: Any, bits: int) -> None:
    q, step = quantise(values, bits)
    assert np.abs(q).max(initial=0) <= (1 << (bits - 1)) - 1
    assert (np.abs(q * step.value - values) <= step.value * (0.5 + 1e-12)).all()


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_every_narrow_number_is_rounded_to_itself(dtype: str) -> None:
    every = np.arange(1 << 16, dtype=np.uint16)
    stored = every.view(np.float16) if dtype == "F16" else every
    wide = to_float64(stored, dtype)
    number = ~np.isnan(wide)
    assert np.array_equal(round_to(wide, dtype).view(np.uint16)[number], every[number])
    assert np.isnan(to_float64(round_to(wide[~number], dtype), dtype)).all()


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_halfway_between_two_narrow_numbers_goes_to_the_even_one(dtype: str) -> None:
    top = 0x7C00 if dtype == "F16" else 0x7F80
    every = np.arange(top, dtype=np.uint16)
    wide = to_float64(every.view(np.float16) if dtype == "F16" else every, dtype)
    middle = (wide[:-1] + wide[1:]) / 2
    even = np.where(every[:-1] % 2 == 0, every[:-1], every[1:])
    assert np.array_equal(round_to(middle, dtype).view(np.uint16), even)
    assert np.array_equal(round_to(-middle, dtype).view(np.uint16), even | 0x8000)
    assert np.array_equal(round_to(np.nextafter(middle, np.inf), dtype).view(np.uint16), every[1:])
    assert np.array_equal(round_to(np.nextafter(middle, 0), dtype).view(np.uint16), every[:-1])


@pytest.mark.parametrize(("dtype", "bits"), [("F16", (5, 10)), ("BF16", (8, 7))])
def test_random_float64_are_rounded_as_rational_arithmetic_says(
    dtype: str, bits: tuple[int, int]
) -> None:
    rng = np.random.default_rng(4)
    spread = np.ldexp(rng.uniform(-1, 1, 2000), rng.integers(-160, 120, 2000))
    near = np.ldexp(rng.uniform(-1, 1, 2000), rng.integers(-26, 15, 2000))
    values = np.concatenate([spread if dtype == "BF16" else near, near])
    got = to_float64(round_to(values, dtype), dtype)
    assert [Fraction(g) for g in got] == [nearest_even(v, *bits) for v in values]


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_rounding_agrees_with_torch_on_random_bit_patterns(dtype: str) -> None:
    words = np.random.default_rng(5).integers(0, 1 << 32, 200_000, dtype=np.uint64)
    # float32 patterns, so that torch, which goes through float32, rounds but once
    values = words.astype(np.uint32).view(np.float32)
    values = values[np.isfinite(values)]
    wide = values.astype(np.float64)
    theirs = torch.from_numpy(values).to(TORCH[dtype])
    ours = round_to(wide, dtype)
    assert ours.tobytes() == theirs.view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize(
    ("dtype", "largest", "unit"), [("F16", 65504.0, 32.0), ("BF16", 255 * 2.0**120, 2.0**120)]
)
def test_beyond_the_largest_number_lies_infinity(dtype: str, largest: float, unit: float) -> None:
    limit = largest + unit / 2
    values = np.array([np.nextafter(limit, 0), limit, 1e300, np.inf])
    assert to_float64(round_to(values, dtype), dtype).tolist() == [largest, *[math.inf] * 3]
    assert to_float64(round_to(-values, dtype), dtype).tolist() == [-largest, *[-math.inf] * 3]


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64"])
def test_bits_stay_where_the_change_is_zero(dtype: str) -> None:
    width = STORAGE[dtype].itemsize
    words = np.random.default_rng(6).integers(0, 1 << 62, 4096, dtype=np.uint64)
    base = words.view(STORAGE[dtype])  # NaNs of all kinds, infinities, subnormals, -0.0 among them
    tiny, first = np.zeros(1, STORAGE[dtype]), np.zeros(base.size, np.int64)
    base[0] = tiny[0]
    first[0] = 1
    result = add(base, dtype, first, ONE)
    assert result[1:].tobytes() == base[1:].tobytes()
    assert to_float64(result[:1], dtype).tolist() == [1.0]
    assert result.itemsize == width


def test_negative_zero_stays_and_a_change_adds_to_it() -> None:
    base = np.array([-0.0, -0.0, 0.0], np.float32)
    result = add(base, "F32", np.array([0, 1, 0]), ONE)
    assert result.view(np.uint32).tolist() == [0x80000000, 0x3F800000, 0]


def test_the_sum_is_rounded_once_from_float64() -> None:
    # Through float32, 1 + 2^-8 - 2^-40 would first become the tie 1 + 2^-8, then go to even.
    base = round_to(np.array([1.0]), "BF16")
    q, step = np.array([(1 << 29) - 1]), Step(1, -36)  # 2^-7 - 2^-36: just below a tie's double
    exact = nearest_even(1.0 + float(q[0] * step.value), 8, 7)
    assert Fraction(to_float64(add(base, "BF16", q, step), "BF16")[0]) == exact
    half = np.array([1.0 + 2.0**-8 + 2.0**-40])
    assert to_float64(round_to(half, "BF16"), "BF16").tolist() == [1.0 + 2.0**-7]


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_a_weight_that_overflows_is_refused(dtype: str) -> None:
    with pytest.raises(BadResult, match=r"result\.not_finite"):
        add(np.zeros(2, STORAGE[dtype]), dtype, np.array([0, 1 << 20]), Step(255, MAX_EXPONENT))


@pytest.mark.parametrize("old", [math.nan, math.inf, -math.inf])
def test_a_change_to_what_is_not_a_number_is_refused(old: float) -> None:
    with pytest.raises(BadResult, match=r"result\.not_finite"):
        add(np.array([old], np.float32), "F32", np.array([1]), ONE)


@pytest.mark.parametrize("q", [Q_LIMIT, -Q_LIMIT, np.iinfo(np.int64).min])
def test_a_symbol_beyond_the_grid_is_refused(q: int) -> None:
    with pytest.raises(BadResult, match=r"result\.overflow"):
        add(np.zeros(1, np.float32), "F32", np.array([q]), ONE)


def test_snapping_takes_the_nearest_grid_point() -> None:
    x = np.array([0.4, 0.6, -0.6, 1.5, 2.5, -1e6])
    assert snap(x * 0.25, Step(1, -2), Guard()).tolist() == [0, 1, -1, 2, 2, -1_000_000]


def test_the_guard_decides_for_the_elements_that_it_names() -> None:
    x = np.array([0.5, 0.5, -1.5, -1.5, 0.9])
    guard = Guard(np.array([0, 1, 2, 3]), np.array([0, 1, 0, 1]))
    assert snap(x, ONE, guard).tolist() == [0, 1, -2, -1, 1]


def test_the_guard_counts_elements_of_the_whole_tensor() -> None:
    x = np.array([0.5, 0.5, 2.5, 2.5])
    guard = Guard(np.array([1, 2]), np.array([1, 1]))
    assert snap(x, ONE, guard).tolist() == [0, 1, 3, 2]
    assert snap(x[:2], ONE, guard, 0).tolist() == [0, 1]
    assert snap(x[2:], ONE, guard, 2).tolist() == [3, 2]
    assert snap(x[2:], ONE, guard, 4).tolist() == [2, 2]


@pytest.mark.parametrize("x", [math.nan, math.inf, -math.inf, float(Q_LIMIT), -float(Q_LIMIT)])
def test_a_change_beyond_the_grid_is_refused(x: float) -> None:
    with pytest.raises(BadResult, match=r"result\.overflow"):
        snap(np.array([0.0, x]), ONE, Guard())
