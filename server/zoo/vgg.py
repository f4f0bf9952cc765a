"""The paper's small VGGs (Chen et al. 2022, section 5): plain stacks of 3x3 convolutions.

`vgg_small` and `vgg_medium` are recovered from the paper's Table 1: both the parameters of the
model and those of KA with n = 3 match.
"""

from __future__ import annotations

from torch import Tensor, nn

_POOLS = 4


class Vgg(nn.Module):
    """3x3 convolutions with bias, each halving the image; global average; one linear layer."""

    def __init__(
        self, widths: tuple[int, ...], in_channels: int, classes: int, batch_norm: bool
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, width in enumerate(widths):
            layers.append(nn.Conv2d(in_channels, width, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            # The same as after the ReLU, of which it leaves a quarter; training gets faster so.
            if index < _POOLS:
                layers.append(nn.MaxPool2d(2))
            layers.append(nn.ReLU())
            in_channels = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(in_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W), H and W at least 16 -> logits (N, classes)."""
        logits: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits


def vgg_tiny(in_channels: int = 3, classes: int = 10) -> Vgg:
    """Widths 16, 16, 32, 64 without BatchNorm: 26,554 parameters."""
    return Vgg((16, 16, 32, 64), in_channels, classes, batch_norm=False)


def vgg_small(in_channels: int = 3, classes: int = 10) -> Vgg:
    """Widths 16, 32, 64, 64, 128 with BatchNorm: 136,266 parameters."""
    return Vgg((16, 32, 64, 64, 128), in_channels, classes, batch_norm=True)


def vgg_medium(in_channels: int = 3, classes: int = 10) -> Vgg:
    """Widths 32, 64, 128, 128, 256 with BatchNorm: 539,786 parameters."""
    return Vgg((32, 64, 128, 128, 256), in_channels, classes, batch_norm=True)
