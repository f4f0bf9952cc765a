"""Labelled data for a model: opened, known by their fingerprint, and fit for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from server.errors import BadDataset
from server.refine.batches import Batches
from server.registry.opening import fingerprint, open_dataset


def open_labelled(
    uri: str, expected: str | None, module: nn.Module, device: torch.device
) -> tuple[tuple[str, ...], Batches]:
    """Classes and data that `module`, which lies on `device`, can be run and judged on.

    `expected` is the fingerprint that the data must have. Raises BadDataset: `changed`,
    `bad_image` and `bad_label` where the module cannot serve them, and those of `open_dataset`.
    """
    if expected is not None and fingerprint(uri) != expected:
        raise BadDataset("changed", f"{uri} no longer holds what it held when registered")
    dataset = open_dataset(uri)
    data = Batches.of(dataset, device)
    module.eval()
    try:
        with torch.no_grad():
            shape = tuple(module(sample(data)).shape)
    except RuntimeError as error:
        found = f"the model cannot take images of {dataset.images.shape[1:]}: {error}"
        raise BadDataset("bad_image", f"{uri}: {found}") from error
    top = int(dataset.labels.max())
    if len(shape) != 2 or top >= shape[1]:
        found = f"label {top}, and the model gives {shape[1:]} outputs"
        raise BadDataset("bad_label", f"{uri}: {found}")
    return dataset.classes, data


def sample(data: Batches) -> Tensor:
    """A few images, to see how the model runs."""
    return next(data.plain(4))[0]
