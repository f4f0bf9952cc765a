"""What symbols come to when coded, with everything that travels, beside what they hold at least."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shared import coding
from tests.shared.symbols import entropy, laplace, trained

MEASURED = Path(__file__).parents[2] / "benchmarks" / "results" / "coders" / "trained.json"
RANGE, DENSE = coding.coder("range/2"), coding.coder("dense/1")
#: Whole bytes, and the one that ends them.
ENDS = 1.5


@pytest.mark.parametrize(
    ("size", "zeros", "most"),
    [
        (10_000, 0.9, 1.01),
        (10_000, 0.99, 1.03),
        (100_000, 0.9, 1.005),
        (100_000, 0.99, 1.005),
        (100_000, 0.999, 1.03),
        (1_000_000, 0.99, 1.002),
        (1_000_000, 0.999, 1.005),
    ],
)
def test_drawn_symbols_come_near_their_entropy(size: int, zeros: float, most: float) -> None:
    for seed in range(2):
        symbols = laplace(size, zeros, seed)
        assert len(RANGE.encode([symbols])) <= most * entropy(symbols) + ENDS


def test_ten_symbols_in_ten_thousand_cost_three_bytes_more_at_most() -> None:
    # 3% of what they hold would be a third of a byte.
    for seed in range(10):
        symbols = laplace(10_000, 0.999, seed)
        assert len(RANGE.encode([symbols])) <= entropy(symbols) + 4


@pytest.mark.parametrize(
    ("update", "most"), [("ka", 1.03), ("sparse-large", 1.0), ("direct", 1.01), ("sparse", 1.034)]
)
def test_trained_updates_come_near_their_entropy(update: str, most: float) -> None:
    arrays = [array.reshape(-1) for array in trained(update)]
    assert len(RANGE.encode(arrays)) <= most * sum(map(entropy, arrays))


def test_it_is_the_small_vectors_that_miss_three_percent() -> None:
    matrices = [array.reshape(-1) for array in trained("sparse") if array.shape[1] > 1]
    assert len(RANGE.encode(matrices)) <= 1.011 * sum(map(entropy, matrices))


def test_trained_tensors_come_near_their_entropy_each() -> None:
    for update in ("sparse", "sparse-large", "ka", "direct"):
        for array in trained(update):
            held = entropy(array.reshape(-1))
            assert len(RANGE.encode([array.reshape(-1)])) <= 1.03 * held + (6 if held < 400 else 0)


def test_no_trained_tensor_takes_more_than_deepcabac_was_measured_to_make_of_it() -> None:
    rows = json.loads(MEASURED.read_text())["rows"]
    for row in rows:
        arrays = [array.reshape(-1) for array in trained(row["update"])]
        arrays = arrays if row["tensor"] is None else [arrays[row["tensor"]]]
        assert len(RANGE.encode(arrays)) <= row["deepcabac"], row
    assert len(rows) > 50


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_million_dense_symbols_come_near_their_entropy(bits: int) -> None:
    top = (1 << bits - 1) - 1
    normal = np.random.default_rng(bits).standard_normal(1_000_000) * max(top / 3.5, 0.6)
    symbols = np.rint(normal.clip(-top, top)).astype(np.int64)
    assert len(DENSE.encode([symbols])) <= 1.003 * entropy(symbols)


def test_dense_symbols_that_depend_on_what_stands_before_are_below_their_entropy() -> None:
    rng = np.random.default_rng(4)
    signs = np.where(rng.random(200_000) < 0.1, -1, 1).cumprod()
    symbols = signs * rng.integers(0, 4, signs.size)
    assert len(DENSE.encode([symbols])) < 0.9 * entropy(symbols)
    assert len(RANGE.encode([symbols[:20_000]])) < 0.92 * entropy(symbols[:20_000])
