"""A small vision transformer (Dosovitskiy et al. 2021): an image as a sequence of patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Vit(nn.Module):
    """Patches as tokens with learnt positions, encoder layers, an average, a linear layer.

    LayerNorm stands before attention and feed-forward, and once more at the end.
    """

    def __init__(
        self, width: int, layers: int, patch: int, in_channels: int, classes: int, size: int
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.positions = nn.Embedding((size // patch) ** 2, width)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.blocks = nn.Sequential(*(_block(width) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, size, size) -> logits (N, classes)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)  # (N, tokens, width)
        places = torch.arange(tokens.shape[1], device=x.device)
        out = self.blocks(tokens + self.positions(places))
        logits: Tensor = self.linear(self.norm(out).mean(1))
        return logits


def small_vit(in_channels: int = 1, classes: int = 10, size: int = 28) -> Vit:
    """Two layers of width 64 with four heads, patches of 7 x 7: 71,946 parameters.

    Images are `size` x `size`.
    """
    return Vit(64, 2, 7, in_channels, classes, size)


def _block(width: int) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
