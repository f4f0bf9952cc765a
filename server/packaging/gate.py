"""The gate asks whether another machine would decode a tensor to the same bits.

A factorising method computes with real numbers on the device. Before such a tensor is sent, its
change is computed again with two LAPACKs (numpy's and torch's), each on the matrix as it is,
transposed, and under three seeded permutations. The largest disagreement, in steps, tells how far
machines can be apart; elements closer than 100 times that to a rounding boundary are decided here
and listed in the guard (docs/architecture.md, "Exact reconstitution").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.errors import NotReproducible
from shared.grid import Guard
from shared.methods.base import FactorisingMethod, Tensor
from shared.svd import NUMPY, Lapack, Matrix

MAX_DISAGREEMENT = 1e-8
MIN_GUARD = 1e-6
GUARD_FACTOR = 100
_PERMUTATIONS = 3

_Svd = tuple[Matrix, NDArray[np.float64], Matrix]


@dataclass(frozen=True)
class Verdict:
    """What the gate found: the disagreement in steps, and the guard that makes it harmless."""

    disagreement: float
    guard: Guard


class TorchLapack:
    """torch.linalg on the CPU: another LAPACK than numpy's.

    torch is imported at the first use: a server that builds no package starts seconds sooner.
    """

    def __init__(self) -> None:
        import torch

        self._torch = torch

    def triangle(self, a: Matrix) -> Matrix:
        """See Lapack."""
        factors = self._torch.linalg.qr(self._torch.from_numpy(np.ascontiguousarray(a)), mode="r")
        return np.asarray(factors.R.numpy())

    def svd(self, a: Matrix) -> _Svd:
        """See Lapack."""
        u, s, vt = self._torch.linalg.svd(
            self._torch.from_numpy(np.ascontiguousarray(a)), full_matrices=False
        )
        return u.numpy(), s.numpy(), vt.numpy()


class Transposed:
    """Factors the transpose, by SVD alone."""

    def __init__(self, inner: Lapack) -> None:
        self._inner = inner

    def triangle(self, a: Matrix) -> Matrix:
        """See Lapack; with `a = U diag(s) V^T`, diag(s) V^T will do."""
        _, s, vt = self.svd(a)
        return s[:, None] * vt

    def svd(self, a: Matrix) -> _Svd:
        """See Lapack."""
        u, s, vt = self._inner.svd(a.T)
        return vt.T, s, u.T


class Permuted:
    """Factors the matrix with its rows and columns shuffled, and puts the factors in order."""

    def __init__(self, inner: Lapack, seed: int) -> None:
        self._inner, self._seed = inner, seed

    def _orders(self, a: Matrix) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        rng = np.random.default_rng(self._seed)
        return rng.permutation(a.shape[0]), rng.permutation(a.shape[1])

    def triangle(self, a: Matrix) -> Matrix:
        """See Lapack."""
        rows, columns = self._orders(a)
        return self._inner.triangle(a[rows][:, columns])[:, np.argsort(columns)]

    def svd(self, a: Matrix) -> _Svd:
        """See Lapack."""
        rows, columns = self._orders(a)
        u, s, vt = self._inner.svd(a[rows][:, columns])
        return u[np.argsort(rows)], s, vt[:, np.argsort(columns)]


def variants() -> Iterator[Lapack]:
    """Every way in which the gate factors a matrix, the device's own first."""
    wrappers: list[Callable[[Lapack], Lapack]] = [lambda inner: inner, Transposed]
    wrappers += [lambda inner, s=seed: Permuted(inner, s) for seed in range(_PERMUTATIONS)]  # type: ignore[misc]
    for wrap in wrappers:
        yield wrap(NUMPY)
        yield wrap(TorchLapack())


def judge(method: FactorisingMethod, W: Matrix, tensor: Tensor, symbols: list[Matrix]) -> Verdict:
    """Hold the variants against each other; raises NotReproducible where they are too far apart."""
    unit = tensor.steps[-1].value
    reference: Matrix | None = None
    disagreement = 0.0
    for lapack in variants():
        x = np.concatenate([b.reshape(-1) for b in method.change(W, tensor, symbols, lapack)])
        x /= unit
        if reference is None:
            reference = x
        else:
            apart = np.abs(x - reference).max(initial=0.0)
            disagreement = float(np.maximum(disagreement, apart))  # unlike max, keeps NaN
    if not disagreement <= MAX_DISAGREEMENT:
        raise NotReproducible("unstable", f"{tensor.name}: {disagreement:.1e} steps apart")
    assert reference is not None
    guard = max(MIN_GUARD, GUARD_FACTOR * disagreement)
    return Verdict(disagreement, _guard(reference, guard))


def _guard(x: NDArray[np.float64], guard: float) -> Guard:
    """The elements closer than `guard` steps to a boundary, with the side that numpy rounds to."""
    floor = np.floor(x)
    indices = np.flatnonzero(np.abs(x - floor - 0.5) < guard)
    return Guard(indices.astype(np.int64), (np.rint(x) - floor)[indices].astype(np.int64))
