"""The factorisation that KA and ML need, and the ML basis.

The device never forms the large factors: with o <= i, the left singular vectors of `W` come from
the small `R` of `W^T = Q R`, and KA's term is a product with `W` itself (design.md section 3.6).
Going through the Gram matrix would be cheaper and 2.6e-6 off.

The server runs the same functions with two LAPACKs, on transposed and permuted inputs, to see how
far machines can disagree; hence `lapack` as a parameter. Devices use numpy's.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shared import prng
from shared.errors import BadResult

Matrix = NDArray[np.float64]

#: Singular values below this share of the largest count as zero, and neighbours closer than this
#: share of the largest count as equal. Absolute and far above the noise of any float64 SVD.
NULL_SHARE = 2e-4
TIE_SHARE = 2e-4

# Rows of a block over columns of the matrix: taller blocks cost memory, flatter ones time.
_BLOCK_HEIGHT = 2

#: A column of the ML basis is used only where it stands out this far from its predecessors.
MIN_PIVOT = 1e-3


class Lapack(Protocol):
    """The two factorisations that are asked of a linear algebra library, in float64."""

    def triangle(self, a: Matrix) -> Matrix:
        """Some square `R` with `a = Q R` and orthonormal columns in Q, for a tall `a`."""

    def svd(self, a: Matrix) -> tuple[Matrix, NDArray[np.float64], Matrix]:
        """Thin SVD: U, s (descending), V^T."""


class NumpyLapack:
    """numpy.linalg, as devices use it."""

    def triangle(self, a: Matrix) -> Matrix:
        """See Lapack.

        Block by block, each on top of the R so far: numpy copies what it factors twice, and a
        device has no room for two more of its largest tensor.
        """
        r = np.empty((0, a.shape[1]))
        height = _BLOCK_HEIGHT * a.shape[1]
        for start in range(0, a.shape[0], height):
            block = np.vstack((r, a[start : start + height]))
            r = np.asarray(np.linalg.qr(block, mode="r"), np.float64)
        return r

    def svd(self, a: Matrix) -> tuple[Matrix, NDArray[np.float64], Matrix]:
        """See Lapack; raises BadResult where LAPACK would not come to an end."""
        if not np.isfinite(a).all():
            raise BadResult("overflow", "weights are too large to be factorised")
        try:
            u, s, vt = np.linalg.svd(a, full_matrices=False)
        except np.linalg.LinAlgError as error:
            raise BadResult("broken_arithmetic", "a factorisation did not converge") from error
        return u, s, vt


NUMPY = NumpyLapack()


def short_side(W: Matrix, lapack: Lapack = NUMPY) -> tuple[Matrix, NDArray[np.float64]]:
    """Singular vectors of the shorter side of `W` (o x i), (m, m), and values (m,), m = min(o, i).

    These are U where o <= i, else V.
    """
    tall = W.T if W.shape[0] <= W.shape[1] else W
    _, s, vt = lapack.svd(lapack.triangle(tall))
    return vt.T, s


def spectral_operator(vectors: Matrix, s: NDArray[np.float64], ds: NDArray[np.float64]) -> Matrix:
    """`P` (m, m) such that `P W` (o <= i) or `W P` is `U diag(ds) V^T`.

    Where ds is 0 nothing is divided: the server zeroes it at null singular values.
    """
    ratio = np.divide(ds, s, out=np.zeros_like(ds), where=ds != 0)
    return (vectors * ratio) @ vectors.T


def right_vectors(W: Matrix, r: int, lapack: Lapack = NUMPY) -> tuple[Matrix, NDArray[np.float64]]:
    """The first `r` right singular vectors of `W` as columns (i, r), and all singular values.

    r is at most the numerical rank: with o <= i each vector is `W^T u / s`, which is off by at
    most 1e-16 / NULL_SHARE.
    """
    vectors, s = short_side(W, lapack)
    if W.shape[0] <= W.shape[1]:
        return (W.T @ vectors[:, :r]) / s[:r], s
    return vectors[:, :r], s


def truncate(W: Matrix, rank: int) -> dict[str, Matrix]:
    """The best rank-r factors of `W`: `L` (o, r) and `R` (r, i)."""
    U, s, Vt = NUMPY.svd(W)
    return {"L": U[:, :rank] * s[:rank], "R": Vt[:rank]}


def rank(s: NDArray[np.float64]) -> int:
    """How many singular values are not null."""
    return int((s > NULL_SHARE * s[0]).sum()) if s.size and s[0] > 0 else 0


def ties(s: NDArray[np.float64], share: float = TIE_SHARE) -> list[tuple[int, int]]:
    """The clusters of equal singular values as `(start, size)`, in order; most have size 1.

    Neighbours are chained: a run of small gaps is one cluster.
    """
    if not s.size:
        return []
    starts = [0, *(np.flatnonzero(s[:-1] - s[1:] > share * s[0]) + 1).tolist()]
    return [(a, b - a) for a, b in zip(starts, [*starts[1:], s.size], strict=True)]


def basis(vectors: Matrix, clusters: list[tuple[int, int]], key: int) -> tuple[Matrix, float]:
    """A basis (i, r) of the right singular spaces that does not depend on who computed `vectors`.

    Singular vectors are defined up to sign, and inside a cluster up to rotation. So each cluster
    `V_c` is replaced by `GramSchmidt(V_c V_c^T G_c)`, with `G_c` seeded signs; for a single vector
    that is the sign which makes <v, g> positive. Also returns the smallest pivot: below MIN_PIVOT
    the server takes the next seed.
    """
    i = vectors.shape[0]
    columns = np.empty_like(vectors)
    smallest = np.inf
    for start, size in clusters:
        V = vectors[:, start : start + size]  # (i, size)
        G = prng.signs(key, start * i, (start + size) * i).reshape(size, i).T
        projected = V @ (V.T @ G)  # (i, size)
        for j in range(size):
            column = projected[:, j]
            for done in range(start, start + j):
                column = column - columns[:, done] * (columns[:, done] @ column)
            pivot = float(np.sqrt(column @ column))
            smallest = min(smallest, pivot)
            columns[:, start + j] = column / pivot if pivot > 0 else column
    return columns, float(smallest)
