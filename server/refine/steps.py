"""The grids of what every method sends beside its matrices: biases and BatchNorm's parameters.

A step that adds the same loss everywhere takes the fewest bytes for what it loses. How much that is
comes from the Fisher information, which only tells of small changes, and little of a model that is
sure of everything: so the loss is measured, and the grids are made finer until it is as foretold.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from server.refine.batches import Batches, generator
from server.refine.sensitivity import SAMPLE, sensitivities, step_for
from server.refine.weights import load_into
from shared.tensors import Array

#: What a step of one number may add to the loss. The 618 of VGG-small then take 275 bytes, instead
#: of 620 at 8 bits, and lose 0.001 together.
LOSS = 2e-5
#: Rounding adds a twelfth of that a number; more than this share of it was not foretold.
_MARGIN = 0.5
_ATTEMPTS = 8
_BATCH = 512


def steps_of(
    module: nn.Module, base: Mapping[str, Tensor], others: Mapping[str, Array], data: Batches
) -> dict[str, float]:
    """The steps of those of `others`, by name, for which one is known to be fine enough.

    `module` holds the new weights; what is left in it afterwards is of no use.
    """
    new = {n: torch.from_numpy(v) for n, v in others.items()}
    felt = sensitivities(module, data)
    exact, loss = _loss(module, data), LOSS
    for _ in range(_ATTEMPTS):
        found = {n: step_for(loss, felt.get(n, 0.0)) for n in new if _is_kept(new[n], base.get(n))}
        steps = {n: step for n, step in found.items() if step is not None}
        load_into(module, {n: _rounded(new[n], base[n], step) for n, step in steps.items()})
        if _loss(module, data) - exact <= _MARGIN * loss * sum(new[n].numel() for n in steps):
            return steps
        loss /= 4
    return {}


def _is_kept(new: Tensor, old: Tensor | None) -> bool:
    return old is not None and old.shape == new.shape and new.dim() < 2


def _rounded(new: Tensor, old: Tensor, step: float) -> Tensor:
    old = old.double()
    return old + ((new - old) / step).round() * step


def _loss(module: nn.Module, data: Batches) -> float:
    """The mean loss of a sample of the data, always the same."""
    order = torch.randperm(len(data), generator=generator(0, "steps"))[:SAMPLE]
    sample = data.rows(order)
    module.eval()
    with torch.inference_mode():
        losses = [
            cross_entropy(module(images), labels, reduction="sum")
            for images, labels in sample.plain(_BATCH)
        ]
    return float(sum(losses)) / max(len(sample), 1)
