"""`lora`: low-rank adaptation, `W <- W + L R` (Hu et al. 2022, section 4.1).

Both factors are learnt and sent; nothing is factorised on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

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


class LowRankAdaptation(LossyMethod):
    """Parameters: `L` (o, r), `R` (r, i), r at most min(o, i). Only `W` is frozen."""

    id = "lora"
    summary = "a low-rank change; both factors are learnt"
    Options = RankOptions

    def count(self, o: int, i: int, options: RankOptions) -> int:
        """R (o + i)."""
        return min(options.rank, o, i) * (o + i)

    def prepare(self, W: Matrix, name: str, options: RankOptions) -> dict[str, Any]:
        """Nothing is frozen."""
        return {}

    def fit(self, W: Matrix, target: Matrix, name: str, options: Any) -> dict[str, Matrix]:
        """The best change of rank r (Eckart-Young)."""
        return svd.truncate(target - W, options.rank)

    def effect(self, W: Matrix, parameters: Parameters, name: str, options: Any) -> Matrix:
        """`L R`."""
        return parameters["L"] @ parameters["R"]

    def code(
        self, W: Matrix, parameters: Parameters, name: str, options: Any, caution: float = 1.0
    ) -> Code:
        """One step for the product; where one factor is zeros, the other is not sent either."""
        code = code_low_rank(parameters, W, name, options.bits)
        if all(symbols.any() for symbols in code.symbols):
            return code
        return Code([np.zeros_like(symbols) for symbols in code.symbols], code.steps)

    def chunks(self, tensor: Tensor, symbols: SymbolSource) -> Iterator[Symbols]:
        """The product of the integers."""
        return low_rank_chunks(tensor, symbols)
