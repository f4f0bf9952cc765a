"""MobileNetV2 for small images (Sandler et al. 2018): 3x3 stem, an eighth of the size at last."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

#: Expansion, output channels, blocks, stride of the first block.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; a shortcut where the stride is 1."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.has_shortcut = stride == 1
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if self.has_shortcut and inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        hidden = relu(self.bn1(self.conv1(x)))
        hidden = relu(self.bn2(self.conv2(hidden)))
        out: Tensor = self.bn3(self.conv3(hidden))
        return out + self.shortcut(x) if self.has_shortcut else out


class MobileNetV2(nn.Module):
    """A stem, the stages above, a 1x1 convolution to 1280, an average, a linear layer."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        blocks = []
        inputs = 32
        for expansion, outputs, depth, stride in _STAGES:
            for position in range(depth):
                first = stride if position == 0 else 1
                blocks.append(InvertedResidual(inputs, outputs, expansion, first))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = nn.Conv2d(inputs, 1280, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1280)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) -> logits (N, classes)."""
        out = self.blocks(relu(self.bn1(self.conv1(x))))
        out = relu(self.bn2(self.conv2(out)))
        logits: Tensor = self.linear(self.pool(out).flatten(1))
        return logits


def mobilenet_v2(in_channels: int = 3, classes: int = 10) -> MobileNetV2:
    """2,296,922 parameters."""
    return MobileNetV2(in_channels, classes)
