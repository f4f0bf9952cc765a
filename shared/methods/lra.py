"""`lra`: low-rank approximation, `W <- L R` (Chen et al. 2022, eq. 5-8).

The old weights are not reused, so nothing is factorised on the device: `L R` is a product of
integers times a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shared import svd
from shared.coding import SymbolSource
from shared.methods.base import (
    Code,
    LossyMethod,
    Parameters,
    RankOptions,
    Symbols,
    Tensor,
    code_low_rank,
    low_rank_chunks,
)
from shared.svd import Matrix


class LowRankApproximation(LossyMethod):
    """Parameters: `L` (o, r), `R` (r, i), r at most min(o, i). Nothing is frozen."""

    id = "lra"
    summary = "both factors of a low-rank approximation; the old weights are dropped"
    Options = RankOptions
    from_zero = True
    keeps_base = False

    def count(self, o: int, i: int, options: RankOptions) -> int:
        """R (o + i)."""
        return min(options.rank, o, i) * (o + i)

    def prepare(self, W: Matrix, name: str, options: RankOptions) -> dict[str, Any]:
        """Where training starts: `L` = U diag(s), `R` = V^T, cut to rank r (eq. 6)."""
        return svd.truncate(W, options.rank)

    def fit(self, W: Matrix, target: Matrix, name: str, options: Any) -> dict[str, Matrix]:
        """The best approximation of rank r (Eckart-Young)."""
        return svd.truncate(target, options.rank)

    def effect(self, W: Matrix, parameters: Parameters, name: str, options: Any) -> Matrix:
        """`L R - W`."""
        return parameters["L"] @ parameters["R"] - W

    def code(
        self, W: Matrix, parameters: Parameters, name: str, options: Any, caution: float = 1.0
    ) -> Code:
        """Balanced factors, one step each; the product of the two steps is the grid."""
        return code_low_rank(parameters, W, name, options.bits)

    def chunks(self, tensor: Tensor, symbols: SymbolSource) -> Iterator[Symbols]:
        """The product of the integers."""
        return low_rank_chunks(tensor, symbols)
