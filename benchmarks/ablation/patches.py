"""Trainings that production has no option for. Each is a context in which it is patched."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from server.refine import job, price
from server.refine.price import Cost, Price
from server.refine.reparam import sparse
from server.refine.reparam.sparse import Sparse

Patched = AbstractContextManager[Any]

#: Of a training: 4 epochs of 45,000 images, 128 at a time.
STEPS = 4 * 352
#: When a moving aim has come to the one that is asked for.
_THERE = 0.6


def dear_steps(bytes_a_step: float) -> Patched:
    """Another price of a step."""
    return mock.patch.object(sparse, "_BYTES_A_STEP", bytes_a_step)


def vectors_8bit() -> Patched:
    """Biases and BatchNorm at 8 bits."""
    return mock.patch.object(job, "steps_of", return_value={})


def plain_l1() -> Patched:
    """The same price for every symbol, a byte."""
    cost = Sparse.cost

    def plain(self: Sparse) -> Cost:
        return Cost(cost(self).bytes, self._c.abs().sum())

    return mock.patch.object(Sparse, "cost", plain)


def late_rounding() -> Patched:
    """Rounded in the second half only, like the factors of other methods."""

    def effective(self: Sparse) -> Tensor:
        q = self._c + (self._c.round() - self._c).detach() if self.rounding else self._c
        return self.W.add(q, alpha=self._step)

    return mock.patch.object(Sparse, "effective", effective)


def adam(**settings: Any) -> Patched:
    """Other settings of the optimizer."""
    made = torch.optim.AdamW
    return mock.patch.object(torch.optim, "AdamW", lambda p, **k: made(p, **(k | settings)))


@contextlib.contextmanager
def aim(first: float) -> Iterator[None]:
    """An aim that starts at a multiple of what is asked for."""
    follow, done = price.Price._follow, 0

    def moving(self: Price, total: Tensor, wanted: int) -> None:
        nonlocal done
        done += 1
        left = max(0.0, 1 - done / (_THERE * STEPS))
        follow(self, total, round(wanted * (1 + (first - 1) * left)))

    with mock.patch.object(price.Price, "_follow", moving):
        yield
