"""The training loop: plain stochastic gradient descent on the cross entropy.

Order, augmentation and dropout of an epoch depend on the seed and the epoch's number alone, so a
training that resumes at an epoch's end gives the same weights as one that was never interrupted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from server.errors import BadRefinement
from server.refine.batches import Batches
from server.refine.checkpoint import Checkpoint
from server.refine.effective import Clone
from server.refine.evaluate import accuracy
from server.refine.recipe import Recipe
from shared import prng

Report = Callable[[dict[str, Any]], None]

#: Seconds between two progress reports inside an epoch.
_INTERVAL = 1.0


@dataclass
class Progress:
    """Reports of one stage, and how long the rest will take by what was done in this run."""

    report: Report
    stage: str
    epochs: int
    steps: int  # of an epoch
    done: int = 0  # epochs that an earlier run finished

    def __post_init__(self) -> None:
        self._began = self._told = time.monotonic()

    def step(self, epoch: int, step: int, loss: Tensor) -> None:
        """Say how far the epoch is, at most once an interval: reading the loss stops the device."""
        if time.monotonic() - self._told >= _INTERVAL:
            self._tell(epoch, step, float(loss), None)

    def epoch(self, epoch: int, loss: float, held_out: float | None) -> None:
        """Say how the epoch ended."""
        self._tell(epoch, self.steps, loss, held_out)

    def _tell(self, epoch: int, step: int, loss: float, held_out: float | None) -> None:
        self._told = time.monotonic()
        now = epoch * self.steps + step
        here = max(1, now - self.done * self.steps)
        left = (self.epochs * self.steps - now) * (self._told - self._began) / here
        line = {"stage": self.stage, "epoch": epoch + 1, "epochs": self.epochs, "step": step}
        told = {"steps": self.steps, "loss": round(loss, 5), "accuracy": held_out}
        self.report({**line, **told, "seconds_left": round(left, 1)})


def fit(
    clone: Clone,
    data: Batches,
    held_out: Batches,
    recipe: Recipe,
    report: Report,
    checkpoint: Checkpoint | None = None,
    stage: str = "refine",
) -> list[dict[str, float | None]]:
    """Train `clone` in place; returns loss and held-out accuracy of each epoch.

    Continues from `checkpoint` where it holds something, and keeps it up to date. Raises
    BadRefinement `bad_recipe` where the loss is no number any more.
    """
    optimizer = optimizer_of(clone, recipe)
    history = checkpoint.restore(clone, optimizer) if checkpoint else []
    steps = data.steps(recipe)
    if clone.price is not None:
        clone.price.pace(recipe.epochs * steps)
    progress = Progress(report, stage, recipe.epochs, steps, done=len(history))
    for epoch in range(len(history), recipe.epochs):
        torch.manual_seed(prng.stream_key(recipe.seed, f"dropout/{epoch}") >> 1)
        clone.module.train()
        clone.round(epoch >= recipe.rounds_from)
        total = torch.zeros((), device=data.labels.device)
        for step, (images, labels) in enumerate(data.epoch(recipe, epoch)):
            share = recipe.share(epoch * steps + step, recipe.epochs * steps)
            for group in optimizer.param_groups:
                group["lr"] = group["top"] * share
            loss = take_step(clone, optimizer, images, labels, recipe)
            total += loss
            progress.step(epoch, step, loss)
        mean = float(total) / steps
        if not math.isfinite(mean):
            found = f"the loss is {mean} in epoch {epoch + 1}; the learning rate may be too high"
            raise BadRefinement("bad_recipe", found)
        score = _held_out(clone, held_out)
        history.append({"loss": mean, "accuracy": score})
        progress.epoch(epoch, mean, score)
        if checkpoint:
            checkpoint.save(clone, optimizer, history)
    clone.round(recipe.rounds_from < recipe.epochs)
    return history


def take_step(
    clone: Clone,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
) -> Tensor:
    """One step, at the rates that the optimizer has; returns the loss before it."""
    logits = clone(images, bfloat16=recipe.precision == "bfloat16")
    loss = cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    optimizer.zero_grad(set_to_none=True)
    (loss + clone.penalty()).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


def _held_out(clone: Clone, held_out: Batches) -> float | None:
    if not len(held_out):
        return None
    with clone.applied() as module:
        return accuracy(module, held_out)


def optimizer_of(clone: Clone, recipe: Recipe) -> torch.optim.Optimizer:
    """One group per highest rate and decay; the schedule takes shares of `top`."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for trained in clone.trained():
        decay = recipe.weight_decay if trained.decayed else 0.0
        groups.setdefault((trained.rate, decay), []).append(trained.parameter)
    settings = [
        {"params": parameters, "top": rate, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(settings, momentum=recipe.momentum, fused=True)
    return torch.optim.AdamW(settings, fused=True)
