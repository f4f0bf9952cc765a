"""`rm`: random mask (Chen et al. 2022, section 5.1; Konecny et al. 2016).

Only the weights that a seeded mask selects are learnt; the mask costs a seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import Field

from shared import prng
from shared.coding import SymbolSource
from shared.methods.base import (
    Code,
    LossyMethod,
    LossyOptions,
    Parameters,
    Symbols,
    Tensor,
    code_parameter,
    read,
)
from shared.svd import Matrix
from shared.tensors import CHUNK_ELEMENTS


class MaskOptions(LossyOptions):
    """Options of `rm`."""

    proportion: float = Field(gt=0, le=1, description="share of the weights that are learnt")
    seed: int = Field(default=0, ge=0, lt=1 << 63, description="seed of the mask")

    @property
    def share(self) -> int:
        """The proportion out of `prng.SHARE_ONE`."""
        return int(self.proportion * prng.SHARE_ONE)


class RandomMask(LossyMethod):
    """Parameters: `values` (k,), changes at the selected places in row-major order.

    Frozen: `mask` (o, i) bool.
    """

    id = "rm"
    summary = "the weights that a seeded mask selects"
    Options = MaskOptions

    def count(self, o: int, i: int, options: MaskOptions) -> int:
        """The expected number of selected weights."""
        return round(o * i * options.proportion)

    def prepare(self, W: Matrix, name: str, options: MaskOptions) -> dict[str, Any]:
        """The mask."""
        key = prng.stream_key(options.seed, name)
        return {"mask": prng.mask(key, 0, W.size, options.share).reshape(W.shape)}

    def fit(self, W: Matrix, target: Matrix, name: str, options: Any) -> dict[str, Matrix]:
        """The difference where the mask selects it."""
        return {"values": (target - W)[self.prepare(W, name, options)["mask"]]}

    def effect(self, W: Matrix, parameters: Parameters, name: str, options: Any) -> Matrix:
        """The values at their places."""
        change = np.zeros_like(W)
        change[self.prepare(W, name, options)["mask"]] = parameters["values"]
        return change

    def code(
        self, W: Matrix, parameters: Parameters, name: str, options: Any, caution: float = 1.0
    ) -> Code:
        """One step for all selected weights."""
        q, step = code_parameter(parameters, "values", options.bits)
        return Code([q], (step,))

    def chunks(self, tensor: Tensor, symbols: SymbolSource) -> Iterator[Symbols]:
        """Symbols where the mask selects, zeros elsewhere."""
        key = prng.stream_key(tensor.options.seed, tensor.name)
        size = tensor.o * tensor.i
        symbols.start()
        for start in range(0, size, CHUNK_ELEMENTS):
            stop = min(start + CHUNK_ELEMENTS, size)
            mask = prng.mask(key, start, stop, tensor.options.share)
            q = np.zeros(stop - start, np.int64)
            q[mask] = read(symbols, int(mask.sum()), tensor.options.bits)
            yield q
