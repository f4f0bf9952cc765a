"""How much the loss feels a change of each tensor: the mean diagonal of its Fisher information.

Near an optimum, a change d of one weight adds F d^2 / 2 to the loss, with F the mean square of the
gradients of single samples. Labels are drawn from the model's own predictions: gradients of samples
then have mean zero and are independent of each other, so the squared gradient of a mean over B
samples is F / B on average, and no gradient of a single sample is needed (Martens, "New insights
and perspectives on the natural gradient method", 2020, section 5).

One loss per step for all tensors makes their steps comparable: what a coarse grid costs is the same
everywhere, which is how rate and distortion are best traded.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from server.refine.batches import Batches, generator

#: Images that an estimate is taken from; tensors differ by far more than it is uncertain.
SAMPLE = 2048
_BATCH = 64


def sensitivities(module: nn.Module, data: Batches) -> dict[str, float]:
    """F of every parameter by first name, a mean over its elements.

    The module predicts as it is, with BatchNorm's stored statistics; it comes back in evaluation
    mode, and otherwise as it was.
    """
    draw = generator(0, "sensitivity")
    parameters = dict(module.named_parameters())
    asked = {name: p.requires_grad for name, p in parameters.items()}
    sums = dict.fromkeys(parameters, 0.0)
    batches = 0
    module.eval().requires_grad_(True)
    for images in data.mixed(min(_BATCH, len(data)), SAMPLE):
        logits = module(images)
        chances = logits.detach().softmax(1).cpu()
        labels = torch.multinomial(chances, 1, generator=draw)[:, 0].to(logits.device)
        grads = torch.autograd.grad(
            cross_entropy(logits, labels), list(parameters.values()), allow_unused=True
        )
        for name, grad in zip(parameters, grads, strict=True):
            sums[name] += len(labels) * float(grad.square().mean()) if grad is not None else 0.0
        batches += 1
    for name, p in parameters.items():
        p.requires_grad_(asked[name])
    return {name: total / batches for name, total in sums.items()}


def step_for(loss: float, sensitivity: float) -> float | None:
    """The change of one element that adds `loss`; None where none is known to."""
    if not (sensitivity > 0 and math.isfinite(sensitivity)):
        return None
    return math.sqrt(2 * loss / sensitivity)
