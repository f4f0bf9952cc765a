"""What a model gets right: overall, per class, and compared with the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from server.refine.batches import Batches

#: Images of one forward pass.
BATCH = 500


@dataclass(frozen=True)
class Scores:
    """Shares from 0 to 1. A negative flip is an image that the base got right and this one not."""

    images: int
    accuracy: float
    per_class: dict[str, float]
    negative_flips: float | None

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)


def predict(module: nn.Module, data: Batches) -> Tensor:
    """The class (N,) that the module finds in each image, on the CPU."""
    module.eval()
    with torch.inference_mode():
        found = [module(images).argmax(1).cpu() for images, _ in data.plain(BATCH)]
    return torch.cat(found).clone() if found else torch.zeros(0, dtype=torch.int64)


def accuracy(module: nn.Module, data: Batches) -> float:
    """The share of images that the module gets right."""
    return float((predict(module, data) == data.labels.cpu()).double().mean())


def scores(
    found: Tensor, labels: Tensor, classes: Sequence[str], before: Tensor | None = None
) -> Scores:
    """Hold predictions (N,) against labels (N,), and against those `before` the update.

    A class without an image is left out.
    """
    right = (found == labels).double()
    counts = torch.bincount(labels, minlength=len(classes))
    hits = torch.bincount(labels, weights=right, minlength=len(classes))
    per_class = {c: float(h / n) for c, h, n in zip(classes, hits, counts, strict=False) if n}
    flips = (
        None if before is None else float(((before == labels) & (found != labels)).double().mean())
    )
    return Scores(len(labels), float(right.mean()), per_class, flips)


class Measure:
    """Scores of models on one dataset, compared with the base."""

    def __init__(self, base: nn.Module, data: Batches, classes: Sequence[str]) -> None:
        self._data, self._classes = data, classes
        self._labels = data.labels.cpu()
        self._before = predict(base, data)

    def base(self) -> Scores:
        """Of the base itself."""
        return scores(self._before, self._labels, self._classes)

    def of(self, module: nn.Module) -> Scores:
        """Of a new model."""
        return scores(predict(module, self._data), self._labels, self._classes, self._before)
