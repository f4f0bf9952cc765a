"""A recurrent classifier (Hochreiter and Schmidhuber 1997): an image read row by row."""

from __future__ import annotations

from torch import Tensor, nn


class RowLstm(nn.Module):
    """An LSTM over the rows of an image, each a vector of `in_channels * size` values.

    A linear layer reads the hidden state that the last row leaves.
    """

    def __init__(self, width: int, layers: int, in_channels: int, classes: int, size: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(in_channels * size, width, layers, batch_first=True)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, size) -> logits (N, classes)."""
        rows = x.permute(0, 2, 1, 3).flatten(2)  # (N, H, C size)
        states, _ = self.lstm(rows)
        logits: Tensor = self.linear(states[:, -1])
        return logits


def row_lstm(in_channels: int = 1, classes: int = 10, size: int = 28) -> RowLstm:
    """One layer of width 128, for images `size` wide: 82,186 parameters."""
    return RowLstm(128, 1, in_channels, classes, size)
