"""What is trained: the last two convolutions of VGG-small and its linear layer.

They hold 112,000 of its 136,000 weights and nine tenths of what `sparse` moves; on what enters
them, kept as bytes, a training takes seconds. So a variant is run with several models, and whole
packages are written and decoded as ever.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from server import zoo
from server.refine.batches import Batches
from server.refine.weights import State, load_into, save_state
from server.registry.opening import ImageDataset
from server.zoo.vgg import Vgg

#: Layers before the tail, and what enters it: 64 maps of 4 x 4.
HEAD = 12
_MAPS, _SIDE = 64, 32
_BATCH = 500


class Tail(nn.Module):
    """Maps kept as an image of one channel (N, 1, 32, 32) in [-1, 1] -> logits (N, classes)."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        whole = zoo.get("vgg_small").build({})
        assert isinstance(whole, Vgg)
        self.features = whole.features[HEAD:]
        self.pool, self.classifier = whole.pool, whole.classifier
        self.register_buffer("scale", torch.ones(_MAPS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        maps = (x.reshape(len(x), _MAPS, 4, 4) + 1) * self.scale
        logits: Tensor = self.classifier(self.pool(self.features(maps)).flatten(1))
        return logits


def tail() -> Tail:
    """The factory."""
    return Tail()


def cut(model: State, data: ImageDataset, folder: Path) -> tuple[Path, Path]:
    """The tail's weights, and its data set, of a whole model and images; made where missing."""
    weights, stored = folder / "tail.safetensors", folder / "maps.npz"
    if weights.exists() and stored.exists():
        return weights, stored
    folder.mkdir(parents=True, exist_ok=True)
    whole = zoo.get("vgg_small").build({}).float().eval()
    load_into(whole, model)
    assert isinstance(whole, Vgg)
    images = Batches.of(data, torch.device("cpu"))
    with torch.inference_mode():
        maps = torch.cat([whole.features[:HEAD](x).half() for x, _ in images.plain(_BATCH)])
    top = maps.float().amax((0, 2, 3)).clamp(min=1e-6)[:, None, None]
    kept = (maps.float() / top * 255).round().byte().reshape(-1, _SIDE, _SIDE)
    np.savez(stored, images=kept.numpy(), labels=data.labels)
    own = Tail()
    own.features.load_state_dict(whole.features[HEAD:].state_dict())
    own.classifier.load_state_dict(whole.classifier.state_dict())
    own.scale = top / 2
    save_state(weights, own.state_dict())
    return weights, stored
