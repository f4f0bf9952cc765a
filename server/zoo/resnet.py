"""Residual networks for small images (He et al. 2016, the CIFAR form: 3x3 stem, no first pool)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """The identity where shapes fit, else a 1x1 projection."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, width, H / stride, W / stride)."""
        out: Tensor = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return relu(out + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the last widens fourfold."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = _conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, 4 width, H / stride, W / stride)."""
        out = relu(self.bn1(self.conv1(x)))
        out = relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return relu(out + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, stages of blocks (all but the first halve the image), an average, a linear layer."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        in_channels: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, widths[0], 3)
        self.bn1 = nn.BatchNorm2d(widths[0])
        stages = []
        inputs = widths[0]
        for index, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            blocks = []
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(block(inputs, width, stride))
                inputs = width * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) -> logits (N, classes)."""
        out = self.stages(relu(self.bn1(self.conv1(x))))
        logits: Tensor = self.linear(self.pool(out).flatten(1))
        return logits


def tiny_resnet(in_channels: int = 3, classes: int = 10) -> ResNet:
    """Three stages of one basic block (the paper's MNIST model; widths 16, 32, 64 are ours)."""
    return ResNet(BasicBlock, (16, 32, 64), (1, 1, 1), in_channels, classes)


def resnet18(in_channels: int = 3, classes: int = 10) -> ResNet:
    """11,173,962 parameters."""
    return ResNet(BasicBlock, (64, 128, 256, 512), (2, 2, 2, 2), in_channels, classes)


def resnet50(in_channels: int = 3, classes: int = 10) -> ResNet:
    """23,520,842 parameters."""
    return ResNet(Bottleneck, (64, 128, 256, 512), (3, 4, 6, 3), in_channels, classes)
