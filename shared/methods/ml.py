"""`ml` and `ml_delta`: mapping learning (Chen et al. 2022, eq. 12-13).

The most important r right singular vectors of `W` stay as `R`; only the mapping `L` is learnt.
`ml` is the paper's form, `W <- L R`, which starts by dropping the tail of `W`. `ml_delta` has the
same count and starts at `W`: `W <- W + L R`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shared import prng, svd
from shared.errors import BadMethod, BadPackage
from shared.methods.base import (
    Code,
    FactorisingMethod,
    Parameters,
    RankOptions,
    Tensor,
    code_parameter,
    row_blocks,
    snap_step,
)
from shared.records import Cursor, varint
from shared.svd import Lapack, Matrix

_MAX_SEEDS = 1000


class MappingLearning(FactorisingMethod):
    """Parameters: `L` (o, r). Frozen: `R` (r, i).

    r is the option, lowered to the numerical rank and to the end of a cluster of equal singular
    values. Seed, r and the clusters travel with each tensor.
    """

    id = "ml"
    summary = "a new mapping onto the r most important base filters (the paper's form)"
    Options = RankOptions
    steps = 2  # of L, of the grid
    keeps_base = False

    def count(self, o: int, i: int, options: RankOptions) -> int:
        """The size of `L`."""
        return o * min(options.rank, o, i)

    def prepare(self, W: Matrix, name: str, options: RankOptions) -> dict[str, Any]:
        """The basis; raises BadMethod where no r works."""
        return {"R": _Basis.choose(W, name, options.rank).R}

    def fit(self, W: Matrix, target: Matrix, name: str, options: Any) -> dict[str, Matrix]:
        """Projection onto the basis."""
        R = self.prepare(W, name, options)["R"]
        return {"L": ((target - W) if self.keeps_base else target) @ R.T}

    def effect(self, W: Matrix, parameters: Parameters, name: str, options: Any) -> Matrix:
        """`L R`, less `W` in the paper's form."""
        product = parameters["L"] @ _Basis.choose(W, name, options.rank).R
        return product if self.keeps_base else product - W

    def code(
        self, W: Matrix, parameters: Parameters, name: str, options: Any, caution: float = 1.0
    ) -> Code:
        """One step for `L`; seed, r and clusters as parameters of the tensor."""
        basis = _Basis.choose(W, name, options.rank, caution)
        if caution != 1.0:  # trained on another basis of (nearly) the same space
            L = parameters["L"] @ _Basis.choose(W, name, options.rank).R @ basis.R.T
            parameters = {"L": L}
        q, step = code_parameter(parameters, "L", options.bits)
        product = (q * step.value) @ basis.R
        change = product if self.keeps_base else product - W
        return Code([q.reshape(-1)], (step, snap_step(W, change, caution)), basis.pack())

    def layout(self, tensor: Tensor) -> list[tuple[int, int]]:
        """See FactorisingMethod."""
        r, _, _ = _unpack(tensor)
        return [(tensor.o, r)]

    def change(
        self, W: Matrix, tensor: Tensor, symbols: list[Matrix], lapack: Lapack = svd.NUMPY
    ) -> Iterator[Matrix]:
        """`L R`, less `W` in the paper's form."""
        r, seed, clusters = _unpack(tensor)
        vectors, _ = svd.right_vectors(W, r, lapack)
        columns, _ = svd.basis(vectors, clusters, prng.stream_key(seed, tensor.name))
        L = symbols[0] * tensor.steps[0].value
        for rows in row_blocks(tensor.o, tensor.i):
            block = L[rows] @ columns.T
            yield block if self.keeps_base else block - W[rows]


class MappingLearningDelta(MappingLearning):
    """As `ml`, with the old weights kept under the learnt change."""

    id = "ml_delta"
    summary = "a change of the mapping onto the r most important base filters"
    keeps_base = True


class _Basis:
    """A basis `R` (r, i), with what a device needs to find it again."""

    def __init__(self, R: Matrix, seed: int, clusters: list[tuple[int, int]]) -> None:
        self.R, self.seed, self.clusters = R, seed, clusters

    @classmethod
    def choose(cls, W: Matrix, name: str, rank: int, caution: float = 1.0) -> _Basis:
        """The first seed under which every column stands out."""
        _, s = svd.short_side(W)
        limit = min(rank, svd.rank(s))
        clusters = [c for c in svd.ties(s, caution * svd.TIE_SHARE) if sum(c) <= limit]
        if not clusters:
            raise BadMethod("not_applicable", f"{name}: no {rank} singular vectors stand apart")
        r = sum(clusters[-1])
        vectors, _ = svd.right_vectors(W, r)
        for seed in range(_MAX_SEEDS):
            key = prng.stream_key(seed, name)
            columns, pivot = svd.basis(vectors, clusters, key)
            if pivot >= svd.MIN_PIVOT:
                return cls(columns.T, seed, clusters)
        raise BadMethod("not_applicable", f"{name}: no basis found in {_MAX_SEEDS} seeds")

    def pack(self) -> bytes:
        """r, seed, and the clusters of more than one vector, each as gap and size."""
        wide = [c for c in self.clusters if c[1] > 1]
        parts = [varint(self.R.shape[0]), varint(self.seed), varint(len(wide))]
        done = 0
        for start, size in wide:
            parts += [varint(start - done), varint(size)]
            done = start + size
        return b"".join(parts)


def _unpack(tensor: Tensor) -> tuple[int, int, list[tuple[int, int]]]:
    """r, seed and clusters of a tensor; raises BadPackage."""
    cursor = Cursor(tensor.params)
    r, seed, wide = cursor.varint(), cursor.varint(), cursor.varint()
    if not 1 <= r <= min(tensor.o, tensor.i, tensor.options.rank) or wide > r:
        raise BadPackage("malformed", f"{tensor.name}: rank {r} does not fit")
    clusters: list[tuple[int, int]] = []
    done = 0
    for _ in range(wide):
        start, size = done + cursor.varint(), cursor.varint()
        if size < 2 or start + size > r:
            raise BadPackage("malformed", f"{tensor.name}: clusters do not fit")
        clusters += [(j, 1) for j in range(done, start)]
        clusters.append((start, size))
        done = start + size
    cursor.finish()
    return r, seed, clusters + [(j, 1) for j in range(done, r)]
