"""Small networks whose answers tell which weights made them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from shared.tensors import Array, TensorSpec, WeightsDigest

WIDTH, DEPTH = 64, 12


class Chain(nn.Module):
    """Layers that all hold one number, the version: the answer is the versions met on the way."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(DEPTH)]
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        seen = [torch.unique(layer.weight) for layer in self.layers]
        return torch.unique(torch.cat(seen))


def chain(version: int, layers: int = DEPTH) -> dict[str, Array]:
    """Its weights; only the first `layers` are of that version, the rest of version 0."""
    return {
        f"layers.{n}.weight": np.full((WIDTH, WIDTH), version if n < layers else 0, np.float32)
        for n in range(DEPTH)
    }


class Classifier(nn.Module):
    """Labels of small images."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.body = nn.Linear(12, 16)
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x.flatten(1))))


def seeded(module: nn.Module, seed: int) -> dict[str, Array]:
    """Random weights that fit a module, by the names of its state dict."""
    draw = np.random.default_rng(seed)
    return {
        name: draw.standard_normal(tuple(tensor.shape)).astype(np.float32)
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point()
    }


def held_by(module: nn.Module) -> str:
    """The weights digest of the tensors of a module, all of them float32."""
    digest = WeightsDigest()
    for name, tensor in sorted(module.state_dict().items(), key=lambda item: item[0].encode()):
        digest.start(TensorSpec(name, "F32", tuple(tensor.shape)))
        digest.update(tensor.numpy())
    return digest.digest().hex()
