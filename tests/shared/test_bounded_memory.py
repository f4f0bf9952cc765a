"""A device decodes in bounded memory, whatever ranks and shapes a package names."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.decode import overlap
from shared.grid import Step
from shared.methods.base import Tensor
from shared.methods.lru import LowRankUpdate, UpdateOptions, random_side
from shared.tensors import TensorSpec
from shared.weights import WeightsReader, write_weights

MIB = 1 << 20


class Symbols:
    """Small numbers without end."""

    def start(self) -> None:
        """No array differs from another."""

    def read(self, count: int) -> NDArray[np.int64]:
        return np.arange(count) % 15 - 7

    def finish(self) -> None:
        """Nothing is left over."""


def peak_of(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def lru(o: int, i: int, rank: int) -> NDArray[np.int64]:
    options = UpdateOptions(rank=rank, seed=3)
    tensor = Tensor("w", o, i, options, (Step(1, 0),), lambda: np.empty(0))
    return np.concatenate(list(LowRankUpdate().chunks(tensor, Symbols()))).reshape(o, i)


def test_the_random_side_of_a_high_rank_is_never_whole() -> None:
    o, i, rank = 3, 5000, 1000  # the whole side would take 40 MB
    L = Symbols().read(o * rank).reshape(o, rank)
    side = random_side("w", i, UpdateOptions(rank=rank, seed=3)).astype(np.int64)
    assert np.array_equal(lru(o, i, rank), L @ side)
    assert peak_of(lambda: lru(2, 20_000, 1000)) < 60 * MIB  # 160 MB


def test_what_is_left_of_long_rows_is_read_in_pieces(tmp_path: Path) -> None:
    old = np.arange(6 * MIB, dtype=np.float32).reshape(6, MIB)
    write_weights(tmp_path / "base", {"w": ("F32", old)})
    new = TensorSpec("w", "F32", (7, 3))
    with WeightsReader(tmp_path / "base") as base:
        found = overlap(base, new, 0, new.size).reshape(new.shape)
        assert peak_of(lambda: overlap(base, new, 0, new.size)) < 2 * MIB
    assert np.array_equal(found[:6], old[:, :3])
    assert not found[6].any()
