"""Symbols chosen once more at the end of a training, or after it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.ablation.patches import STEPS
from server.refine import batchnorm, job, loop
from server.refine.batches import Batches, generator, scaled
from server.refine.effective import Clone
from server.refine.price import Price
from server.refine.recipe import Recipe
from server.refine.reparam.base import Site
from server.refine.reparam.sparse import Sparse

#: Images for F, a few at a time, since F is a mean of squares; and for the gradient.
_FISHER, _FEW, _GRADIENT, _MANY = 2048, 16, 20_000, 500
_REFIT_RATE = 1e-3
#: Steps that an average remembers.
_MEMORY = 300

After = Callable[[Clone, Batches, Recipe], None]


def refit() -> AbstractContextManager[Any]:
    """An epoch of biases and BatchNorm alone, after the training."""
    return _afterwards(_refit)


def chosen(kind: str, scale: float) -> AbstractContextManager[Any]:
    """Rate against distortion per weight, at so much of the training's price; then a refit."""

    def choose(clone: Clone, data: Batches, recipe: Recipe) -> None:
        _choose(clone, data, kind, scale)
        _refit(clone, data, recipe)

    return _afterwards(choose)


def _afterwards(act: After) -> AbstractContextManager[Any]:
    trained = loop.fit

    def fit(clone: Clone, data: Batches, held_out: Batches, recipe: Recipe, *rest: Any) -> Any:
        history = trained(clone, data, held_out, recipe, *rest)
        act(clone, data, recipe)
        return history

    return mock.patch.object(job, "fit", fit)


def _refit(clone: Clone, data: Batches, recipe: Recipe) -> None:
    matrices, clone.matrices = clone.matrices, {}
    held = dict(clone.module.named_parameters())
    with torch.no_grad():
        for name, matrix in matrices.items():
            held[name].copy_(matrix.effective().view(held[name].shape))
    optimizer = torch.optim.AdamW(list(clone.vectors.values()), lr=_REFIT_RATE, weight_decay=0.0)
    clone.module.train()
    for step, (images, labels) in enumerate(data.epoch(recipe, recipe.epochs)):
        share = (1 + math.cos(math.pi * step / data.steps(recipe))) / 2
        optimizer.param_groups[0]["lr"] = _REFIT_RATE * share
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(clone(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    clone.matrices = matrices


def _choose(clone: Clone, data: Batches, kind: str, scale: float) -> None:
    felt, pull = _felt(clone, data)
    assert clone.price is not None
    rate = scale * float(clone.price._rate * clone.price.state.exp())
    with torch.no_grad():
        for name, matrix in clone.matrices.items():
            assert isinstance(matrix, Sparse)
            c, step = matrix._c, matrix._step
            F, g = felt[name].view(c.shape), pull[name].view(c.shape)
            share = (c.round() != 0).float().mean().clamp(1e-4, 0.5)
            paid = rate * (2 + torch.log2((1 - share) / share)) / 8
            if kind == "taylor":
                c.copy_(_kept(c.round(), step, F, g, paid))
            else:
                c.copy_(_nearest(c, step, F if kind == "weight" else F.mean(), paid))


def _kept(q: Tensor, step: float, F: Tensor, g: Tensor, paid: Tensor) -> Tensor:
    """Zeros where, to second order, a symbol's absence loses less than its bytes."""
    away = -q * step
    return torch.where(g * away + F * away * away / 2 < paid, 0.0, q)


def _nearest(c: Tensor, step: float, F: Tensor, paid: Tensor) -> Tensor:
    """The q that minimises F (c - q)^2 step^2 / 2 + price of q."""
    near = torch.stack([torch.zeros_like(c), c.sign() * c.abs().floor(), c.sign() * c.abs().ceil()])
    lost = F * step * step * (c - near).square() / 2
    return near.gather(0, (lost + paid * (near != 0)).argmin(0)[None])[0]


def _felt(clone: Clone, data: Batches) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Per weight: the Fisher information's diagonal, and the mean gradient."""
    draw = generator(0, "ablation")
    felt: dict[str, Tensor] = {}
    pull: dict[str, Tensor] = {}
    with clone.applied() as module:
        batchnorm.reestimate(module, data)
        own = {n: p for n, p in module.named_parameters() if _is_sparse(clone, n)}
        for p in own.values():
            p.requires_grad_(True)
        for images in data.mixed(_FEW, _FISHER):
            chances = module(images).detach().softmax(1)
            labels = torch.multinomial(chances, 1, generator=draw)[:, 0]
            for name, grad in _gradients(module, own, images, labels):
                felt[name] = felt.get(name, 0.0) + grad.square() * (_FEW**2 / _FISHER)
        for rows in torch.randperm(len(data), generator=draw)[:_GRADIENT].view(-1, _MANY):
            given = scaled(data.images[rows]), data.labels[rows]
            for name, grad in _gradients(module, own, *given):
                pull[name] = pull.get(name, 0.0) + grad * (_MANY / _GRADIENT)
        for p in own.values():
            p.requires_grad_(False)
    return felt, pull


def _is_sparse(clone: Clone, name: str) -> bool:
    return isinstance(clone.matrices.get(name), Sparse)


def _gradients(
    module: nn.Module, own: dict[str, nn.Parameter], images: Tensor, labels: Tensor
) -> Iterator[tuple[str, Tensor]]:
    loss = cross_entropy(module(images), labels)
    yield from zip(own, torch.autograd.grad(loss, list(own.values())), strict=True)


@contextlib.contextmanager
def averaged(until: float) -> Iterator[None]:
    """From then on symbols stay as they were most of the time, as many as the aim allows."""
    last = round(until * STEPS)
    begun, effective, paid = Sparse.__init__, Sparse.effective, Price.of
    matrices: list[Any] = []

    def begin(self: Any, site: Site) -> None:
        begun(self, site)
        self.mean, self.seen = torch.zeros_like(self._c), 0
        matrices.append(self)

    def watched(self: Any) -> Tensor:
        if torch.is_grad_enabled() and self.seen < last:
            self.seen += 1
            with torch.no_grad():
                self.mean.lerp_(self._c.round(), 1 / _MEMORY)
                if self.seen == last and self is matrices[-1]:
                    _settle(matrices)
        return effective(self)

    def of(self: Price, costs: Any) -> Any:
        return paid(self, costs) if matrices[0]._c.requires_grad else 0.0

    with (
        mock.patch.object(Sparse, "__init__", begin),
        mock.patch.object(Sparse, "effective", watched),
        mock.patch.object(Price, "of", of),
    ):
        yield


def _settle(matrices: list[Any]) -> None:
    """The threshold on the averages that meets the aim, by bisection."""

    def cut(least: float) -> float:
        for matrix in matrices:
            mean = matrix.mean
            matrix._c.copy_(mean.sign() * (mean.abs() + 1 - least).floor())
        return sum(float(matrix.cost().bytes) for matrix in matrices)

    low, high = 0.02, 0.98
    for _ in range(20):
        middle = (low + high) / 2
        too_many = cut(middle) > matrices[0].site.options.bytes
        low, high = (middle, high) if too_many else (low, middle)
    for matrix in matrices:
        matrix._c.requires_grad_(False)
