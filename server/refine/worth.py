"""What each weight's change is worth: how much the loss would rise if the weight went back.

To second order, taking the change d of a weight back adds `-g d + F d^2 / 2` to the loss, with g
the mean gradient at the changed weights, and F the diagonal of the Fisher information, estimated
as `server.refine.sensitivity` does: from labels that the model draws itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from server.refine.batches import Batches, generator

#: Images that the estimate is taken from.
SAMPLE = 2048
_BATCH = 64


def worth(
    module: nn.Module, data: Batches, changes: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]:
    """The loss that each element of `changes` saves, in its shape (o, i).

    `module` holds the changed weights, by first names, and comes back in evaluation mode. An
    element that the loss does not depend on is worth nothing.
    """
    parameters = {n: p for n, p in module.named_parameters() if n in changes}
    slopes = {n: torch.zeros_like(p) for n, p in parameters.items()}
    squares = {n: torch.zeros_like(p) for n, p in parameters.items()}
    draw = generator(0, "worth")
    order = torch.randperm(len(data), generator=draw)[:SAMPLE]
    count = 0
    module.eval().requires_grad_(True)
    for images, labels in data.rows(order).plain(_BATCH):
        logits = module(images)
        chances = logits.detach().softmax(1).cpu()
        drawn = torch.multinomial(chances, 1, generator=draw)[:, 0].to(logits.device)
        for name, grad in _gradients(parameters, logits, labels, keep=True):
            slopes[name] += grad
        # Gradients of samples are independent here: their sum's square is the sum of squares.
        for name, grad in _gradients(parameters, logits, drawn):
            squares[name] += grad.square()
        count += len(labels)
    found = {}
    for name, change in changes.items():
        slope, square = (_plain(sums[name], change.shape) / count for sums in (slopes, squares))
        found[name] = -slope * change + square * np.square(change) / 2
    return found


def _gradients(
    parameters: Mapping[str, Tensor], logits: Tensor, labels: Tensor, keep: bool = False
) -> Iterator[tuple[str, Tensor]]:
    """Of the summed loss; `keep`: there is a second loss of the same logits."""
    loss = cross_entropy(logits, labels, reduction="sum")
    found = torch.autograd.grad(
        loss, list(parameters.values()), retain_graph=keep, allow_unused=True
    )
    return ((n, g) for n, g in zip(parameters, found, strict=True) if g is not None)


def _plain(tensor: Tensor, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return tensor.cpu().double().numpy().reshape(shape)
