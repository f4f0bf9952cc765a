"""What a byte costs in a training under a rate term: so much, or as much as an aim takes.

A fixed price gives more bytes or fewer from model to model, and by jumps: the more symbols there
are, the less the next one costs. With an aim, the price follows the bytes at every step: it rises
while they are too many and falls while they are too few.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: How far the logarithm of the price goes in a step, at most, and from where it began. Faster than
#: the weights can follow, it would swing; in a short training it has to go this far in all.
_GAIN, _REACH, _IN_ALL = 0.01, 3.0, 25.0


@dataclass(frozen=True)
class Cost:
    """What a matrix takes: `bytes` as they would be coded now, and a `pull` that grows with them.

    Scalars; the gradient of `pull` is what one more symbol costs, in bytes.
    """

    bytes: Tensor
    pull: Tensor


class Price:
    """Loss per byte. `state` is all that changes: the logarithm of price over rate."""

    def __init__(self, rate: float, aim: int | None, device: torch.device) -> None:
        self._rate, self._aim = rate, aim
        self.state = torch.zeros((), device=device)
        self._gain = _GAIN

    def pace(self, steps: int) -> None:
        """Follow the aim as fast as a training of so many steps needs."""
        self._gain = max(_GAIN, _IN_ALL / steps)

    def of(self, costs: list[Cost]) -> Tensor:
        """What is added to the loss; the price then follows."""
        pull = torch.stack([cost.pull for cost in costs]).sum()
        paid: Tensor = self._rate * self.state.exp() * pull
        if self._aim is not None:
            total = torch.stack([cost.bytes for cost in costs]).sum()
            self._follow(total, self._aim)
        return paid

    def _follow(self, total: Tensor, aim: int) -> None:
        with torch.no_grad():
            off = (total + 1).log() - math.log(aim + 1)
            self.state.add_(self._gain * off.clamp(-1, 1)).clamp_(-_REACH, _REACH)
