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
from shared.methods.base import (
    Code,
    LossyMethod,
    Parameters,
    RankOptions,
    Symbols,
    Tensor,
    code_parameter,
    read_array,
    row_blocks,
)
from shared.svd import Matrix

#: Elements of the random side that a decoder holds at a time.
_SIDE_ELEMENTS = 1 << 20


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
        q, step = code_parameter(parameters, "L", options.bits)
        return Code([q.reshape(-1)], (step,))

    def chunks(self, tensor: Tensor, symbols: SymbolSource) -> Iterator[Symbols]:
        """The product of the integers; raises BadPackage where the rank is beyond the matrix."""
        if tensor.options.rank > tensor.i:
            raise BadPackage("malformed", f"{tensor.name}: the rank does not fit")
        o, i, r = tensor.o, tensor.i, tensor.options.rank
        L = read_array(symbols, o * r, tensor.options.bits).reshape(o, r).astype(np.float64)
        # R is made in blocks: at a high rank the whole of it is larger than the matrix itself.
        height = max(1, _SIDE_ELEMENTS // max(i, 1))
        blocks = [slice(a, min(a + height, r)) for a in range(0, r, height)]
        R = random_side(tensor.name, i, tensor.options) if len(blocks) == 1 else None
        for rows in row_blocks(o, i):
            q = np.zeros((rows.stop - rows.start, i))  # sums of integers below 2^31: exact
            for part in blocks:
                side = random_side(tensor.name, i, tensor.options, part) if R is None else R
                q += L[rows, part] @ side
            yield q.reshape(-1).astype(np.int64)


def random_side(name: str, i: int, options: UpdateOptions, rows: slice = slice(None)) -> Matrix:
    """`R` (r, i) of +1 and -1, or some of its rows."""
    key = prng.stream_key(options.seed, name)
    start, stop, _ = rows.indices(options.rank)
    return prng.signs(key, start * i, stop * i).reshape(stop - start, i).astype(np.float64)
