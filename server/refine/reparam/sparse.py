"""`sparse`: a change on a coarse grid, trained under what it costs.

Codecs weigh rate against distortion when they code what was trained (DeepCABAC, NNCodec); here the
rate is in the training.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from server.refine.price import Cost
from server.refine.reparam.base import Reparam, Site, Values, float64
from server.refine.sensitivity import step_for
from shared.grid import step_at_least

#: The share of symbols that are not zero is taken to be within these, so that the cost is finite.
_FEWEST, _MOST = 1e-4, 0.5
#: What a step adds to the loss by itself, as the price of so many bytes.
_BYTES_A_STEP = 3.0


class Sparse(Reparam):
    """`W + step round(c)`; gradients pass straight through the rounding.

    A symbol is worth its bytes where it wins more than they cost. Moving a weight of sensitivity F
    by its best d wins F d^2 / 2, so one loss for a step everywhere, a few times what a byte costs,
    suits all tensors; a share of the weights' spread is far too much in one layer and too little to
    matter in another.
    """

    rate = 5e-2
    needs_sensitivity = True

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._step = site.frozen["step"].value
        felt = None
        if site.options.step is None and site.sensitivity is not None:
            felt = step_for(_BYTES_A_STEP * site.options.rate, site.sensitivity)
        if felt is not None:
            self._step = step_at_least(felt).value
        self._c = site.zeros(*site.W.shape)

    def parameters(self) -> dict[str, nn.Parameter]:
        """See Reparam."""
        return {"c": self._c}

    def effective(self) -> Tensor:
        """See Reparam."""
        q = self._c + (self._c.round() - self._c).detach()
        return self.W.add(q, alpha=self._step)

    def cost(self) -> Cost:
        """About the bytes that the symbols take.

        A symbol that is not zero costs its sign and the surprise that it is there, which grows as
        such symbols become few: `1 + log2((1 - p) / p)` bits at a share `p` of them.
        """
        with torch.no_grad():
            size = self._c.abs().round()
            moved = (size > 0).float().mean()
            p = moved.clamp(_FEWEST, _MOST)
            surprise = torch.log2((1 - p) / p)
            # Magnitudes as a geometric distribution of their mean.
            last = moved / size.mean().clamp(min=1e-9)  # the share of digits that end a magnitude
            digits = _entropy(last.clamp(0, 1)) / last.clamp(min=1e-9)
            bits = self._c.numel() * (_entropy(moved) + moved * (1 + digits))
        return Cost(bits / 8, (1 + surprise) / 8 * self._c.abs().sum())

    def values(self) -> Values:
        """`change` (o, i), on its grid."""
        change = float64(self._c.round()) * self._step
        return {"change": change, "change.step": np.array([self._step])}


def _entropy(p: Tensor) -> Tensor:
    """Of a decision, in bits."""
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)) / math.log(2)
