"""`lru`: low-rank update with a random side, `W <- W + L R` (section 5.1; Konecny et al. 2016).

`R` is seeded signs, so only `L` travels, and `L R` is exact in integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import Field

from shared import prng
from shared.coding import SymbolSource
from shared.errors import BadPackage
from shared.grid import quantise
from shared.methods.base import (
    Code,
    LossyMethod,
    Parameters,
    RankOptions,
    Symbols,
    Tensor,
    product_rows,
    read,
)
from shared.svd import Matrix


class UpdateOptions(RankOptions):
    """Options of `lru`."""

    seed: int = Field(default=0, ge=0, lt=1 << 63, description="seed of the random side")


class LowRankUpdate(LossyMethod):
    """Parameters: `L` (o, r). Frozen: `R` (r, i) of +1 and -1."""

    id = "lru"
    summary = "a low-rank change with a seeded random side"
    Options = UpdateOptions

    def count(self, o: int, i: int, options: UpdateOptions) -> int:
        """The size of `L`."""
        return o * options.rank

    def prepare(self, W: Matrix, name: str, options: UpdateOptions) -> dict[str, Any]:
        """The random side."""
        return {"R": random_side(name, W.shape[1], options)}

    def fit(self, W: Matrix, target: Matrix, name: str, options: Any) -> dict[str, Matrix]:
        """Least squares for `L`."""
        R = random_side(name, W.shape[1], options)
        L = np.linalg.lstsq(R.T, (target - W).T, rcond=None)[0].T
        return {"L": np.asarray(L, np.float64)}

    def effect(self, W: Matrix, parameters: Parameters, name: str, options: Any) -> Matrix:
        """`L R`."""
        return parameters["L"] @ random_side(name, W.shape[1], options)

    def code(
        self, W: Matrix, parameters: Parameters, name: str, options: Any, caution: float = 1.0
    ) -> Code:
        """One step for `L`, which is the grid's as well."""
        q, step = quantise(parameters["L"], options.bits)
        return Code([q.reshape(-1)], (step,))

    def chunks(self, tensor: Tensor, symbols: SymbolSource) -> Iterator[Symbols]:
        """The product of the integers; raises BadPackage where the rank is beyond the matrix."""
        if tensor.options.rank > tensor.i:
            raise BadPackage("malformed", f"{tensor.name}: the rank does not fit")
        shape = (tensor.o, tensor.options.rank)
        L = (
            read(symbols, shape[0] * shape[1], tensor.options.bits)
            .reshape(shape)
            .astype(np.float64)
        )
        for block in product_rows(L, random_side(tensor.name, tensor.i, tensor.options)):
            yield block.reshape(-1).astype(np.int64)


def random_side(name: str, i: int, options: UpdateOptions) -> Matrix:
    """`R` (r, i) of +1 and -1."""
    key = prng.stream_key(options.seed, name)
    return prng.signs(key, 0, options.rank * i).reshape(options.rank, i).astype(np.float64)
