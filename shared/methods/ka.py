"""`ka`: knowledge augmentation (Chen et al. 2022, eq. 14-16).

`W <- [U, U'] diag(s') [V, V']^T`. `U` and `V` stay on the device; what travels is the change `ds`
of the singular values and a rank-n term `U' V'^T`, with the tail of `s'` merged into `U'`:

    W <- W + U diag(ds) V^T + U' V'^T
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared import svd
from shared.errors import BadPackage
from shared.methods.base import (
    Code,
    FactorisingMethod,
    Parameters,
    RankOptions,
    Tensor,
    code_parameter,
    code_product,
    product_rows,
    row_blocks,
    snap_step,
)
from shared.svd import Lapack, Matrix

#: Each round brings both parts of the fit closer to the least squares of the whole.
_FIT_ROUNDS = 4


class KnowledgeAugmentation(FactorisingMethod):
    """Parameters: `U` (o, n), `V` (i, n), `ds` (m,), m = min(o, i).

    Frozen: `U0` (o, m), `s` (m,), `V0` (i, m); `free` (m,) bool, false where a singular value is
    null, or chained to one that is, and `ds` must be 0; `ties`, clusters `(start, size)` in which
    `ds` must be equal.
    """

    id = "ka"
    summary = "new singular values and a rank-n augmentation; U and V are reused"
    Options = RankOptions
    steps = 3  # of U' V'^T, of ds, of the grid

    def count(self, o: int, i: int, options: RankOptions) -> int:
        """N (o + i) + m + n."""
        return options.rank * (o + i) + min(o, i) + options.rank

    def prepare(self, W: Matrix, name: str, options: RankOptions) -> dict[str, Any]:
        """The factors of `W` and the freedom of `ds`."""
        U0, s, V0t = svd.NUMPY.svd(W)
        free = constrain(np.ones_like(s), s) > 0
        return {"U0": U0, "s": s, "V0": V0t.T, "free": free, "ties": svd.ties(s)}

    def fit(self, W: Matrix, target: Matrix, name: str, options: Any) -> dict[str, Matrix]:
        """By turns: `ds` by projection, and the best rank n of what is left."""
        frozen = self.prepare(W, name, options)
        U0, V0, n = frozen["U0"], frozen["V0"], options.rank
        change = target - W
        U, V = np.zeros((W.shape[0], n)), np.zeros((W.shape[1], n))
        for _ in range(_FIT_ROUNDS):
            wanted = np.einsum("oj,oj->j", U0, (change - U @ V.T) @ V0)
            ds = constrain(wanted, frozen["s"])
            rest = svd.truncate(change - (U0 * ds) @ V0.T, n)
            r = rest["L"].shape[1]
            U[:, :r], V[:, :r] = rest["L"], rest["R"].T
        return {"U": U, "V": V, "ds": ds}

    def effect(self, W: Matrix, parameters: Parameters, name: str, options: Any) -> Matrix:
        """`U diag(ds) V^T + U' V'^T`."""
        frozen = self.prepare(W, name, options)
        spectral = (frozen["U0"] * parameters["ds"]) @ frozen["V0"].T
        return np.asarray(spectral + parameters["U"] @ parameters["V"].T)

    def code(
        self, W: Matrix, parameters: Parameters, name: str, options: Any, caution: float = 1.0
    ) -> Code:
        """`ds`, `U'`, `V'` with a step each (those of `U'` and `V'` as their product)."""
        vectors, s = svd.short_side(W)
        ds, step_ds = code_parameter(
            {**parameters, "ds": constrain(parameters["ds"], s, caution)}, "ds", options.bits
        )
        factors = {**parameters, "V": parameters["V"].T}
        (a, b), (step,) = code_product(factors, "U", "V", options.bits)
        P = svd.spectral_operator(vectors, s, step_ds.value * ds.astype(np.float64))
        change = P @ W if W.shape[0] <= W.shape[1] else W @ P
        n = options.rank
        a, b = a.reshape(W.shape[0], -1), b.reshape(-1, W.shape[1])
        a = np.pad(a, ((0, 0), (0, n - a.shape[1])))
        b = np.pad(b, ((0, n - b.shape[0]), (0, 0)))
        change += (a @ b) * step.value
        steps = (step, step_ds, snap_step(W, change, caution))
        return Code([ds, a.reshape(-1), b.reshape(-1)], steps)

    def layout(self, tensor: Tensor) -> list[tuple[int, int]]:
        """See FactorisingMethod; raises BadPackage where the rank is beyond the matrix."""
        n, m = tensor.options.rank, min(tensor.o, tensor.i)
        if n > m:  # larger than the matrix itself: never sent, and an allocation without bound
            raise BadPackage("malformed", f"{tensor.name}: rank {n} does not fit")
        return [(1, m), (tensor.o, n), (n, tensor.i)]

    def change(
        self, W: Matrix, tensor: Tensor, symbols: list[Matrix], lapack: Lapack = svd.NUMPY
    ) -> Iterator[Matrix]:
        """`U diag(ds) V^T + U' V'^T`, never forming the larger of U and V."""
        ds, A, B = symbols
        step, step_ds, _ = tensor.steps
        augmentation = product_rows(A, B)
        if not ds.any():
            yield from (block * step.value for block in augmentation)
            return
        vectors, s = svd.short_side(W, lapack)
        P = svd.spectral_operator(vectors, s, ds[0] * step_ds.value)
        wide = tensor.o <= tensor.i
        for rows, block in zip(row_blocks(tensor.o, tensor.i), augmentation, strict=True):
            yield (P[rows] @ W if wide else W[rows] @ P) + block * step.value


def constrain(
    ds: NDArray[np.float64], s: NDArray[np.float64], caution: float = 1.0
) -> NDArray[np.float64]:
    """`ds` with zeros at null singular values and one value in each cluster of equal ones.

    A null singular value has no direction of its own, and equal ones share theirs: two machines
    would scale different vectors. A cluster that reaches into the null ones is zero as a whole.
    """
    out = np.zeros_like(ds)
    rank = svd.rank(s)
    for start, size in svd.ties(s, caution * svd.TIE_SHARE):
        if start + size <= rank:
            out[start : start + size] = ds[start : start + size].mean()
    return out
