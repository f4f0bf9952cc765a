"""`direct`: the quantised change of every weight."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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


class Direct(LossyMethod):
    """Parameters: `change` (o, i). Biases and BatchNorm parameters are sent so by every method."""

    id = "direct"
    summary = "the quantised change of every weight"
    Options = LossyOptions

    def count(self, o: int, i: int, options: LossyOptions) -> int:
        """Every weight."""
        return o * i

    def prepare(self, W: Matrix, name: str, options: LossyOptions) -> dict[str, Any]:
        """Nothing is frozen."""
        return {}

    def fit(self, W: Matrix, target: Matrix, name: str, options: Any) -> dict[str, Matrix]:
        """The difference."""
        return {"change": target - W}

    def effect(self, W: Matrix, parameters: Parameters, name: str, options: Any) -> Matrix:
        """The change itself."""
        return parameters["change"].reshape(W.shape)

    def code(
        self, W: Matrix, parameters: Parameters, name: str, options: Any, caution: float = 1.0
    ) -> Code:
        """One step for the whole matrix."""
        q, step = code_parameter(parameters, "change", options.bits)
        return Code([q.reshape(-1)], (step,))

    def chunks(self, tensor: Tensor, symbols: SymbolSource) -> Iterator[Symbols]:
        """The symbols are the change."""
        size = tensor.o * tensor.i
        symbols.start()
        for start in range(0, size, CHUNK_ELEMENTS):
            yield read(symbols, min(CHUNK_ELEMENTS, size - start), tensor.options.bits)
