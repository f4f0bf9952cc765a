"""`sparse`: a change of every weight on a coarse grid, most of it zeros.

What the paper's methods save in parameters, this saves in bits: the change is trained on its grid
under a rate term (`server.refine.reparam.sparse`), so that few weights move, by one step or two,
and gaps cost what entropy says (`shared.gap_coding`). Steps travel with each tensor, so a training
may choose them. It needs no factorisation and serves layers of any kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import Field

from shared.coding import SymbolSource
from shared.grid import Step, step_at_least
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

#: In spreads of the weights, where nothing else is known.
_STEP = 0.7


class SparseOptions(LossyOptions):
    """Options of `sparse`."""

    training = LossyOptions.training | {"step", "rate", "bytes"}

    step: float | None = Field(
        default=None,
        gt=0,
        le=16,
        description="step of the grid over the spread of the weights; by default by what they do",
    )
    rate: float = Field(
        default=3e-5, ge=0, le=1, description="what a byte costs, in units of the training loss"
    )
    bytes: int | None = Field(
        default=None,
        ge=1,
        le=1 << 40,
        description="what the symbols shall take; the price of a byte then follows, from the rate",
    )


class Sparse(LossyMethod):
    """Parameters: `change` (o, i), in the units of the weights, always with `change.step`.

    Frozen: `step`, of the grid, where a training does not know better.
    """

    id = "sparse"
    summary = "few steps of a coarse grid, trained under what they cost"
    every_weight = True
    Options = SparseOptions

    def count(self, o: int, i: int, options: SparseOptions) -> int:
        """Every weight is learnt."""
        return o * i

    def prepare(self, W: Matrix, name: str, options: SparseOptions) -> dict[str, Any]:
        """The step of the grid; raises BadMethod where the weights leave none."""
        return {"step": _step(W, options)}

    def fit(self, W: Matrix, target: Matrix, name: str, options: Any) -> dict[str, Matrix]:
        """The difference."""
        return {"change": target - W, "change.step": np.array([_step(W, options).value])}

    def effect(self, W: Matrix, parameters: Parameters, name: str, options: Any) -> Matrix:
        """The change itself."""
        return parameters["change"].reshape(W.shape)

    def code(
        self, W: Matrix, parameters: Parameters, name: str, options: Any, caution: float = 1.0
    ) -> Code:
        """The nearest multiples of the step."""
        q, step = code_parameter(parameters, "change", options.bits)
        return Code([q.reshape(-1)], (step,))

    def chunks(self, tensor: Tensor, symbols: SymbolSource) -> Iterator[Symbols]:
        """The symbols are the change."""
        size = tensor.o * tensor.i
        symbols.start()
        for start in range(0, size, CHUNK_ELEMENTS):
            yield read(symbols, min(CHUNK_ELEMENTS, size - start), tensor.options.bits)


def _step(W: Matrix, options: SparseOptions) -> Step:
    """That share of the spread; of the largest weight where all are equal, of 1 where all are 0."""
    largest = float(np.abs(W).max(initial=0.0)) or 1.0
    spread = largest * float((W / largest).std())  # squares of the weights themselves may overflow
    return step_at_least((options.step or _STEP) * (spread or largest))
