"""`sparse`: a change on a coarse grid, trained under what it costs.

Codecs weigh rate against distortion when they code what was trained (DeepCABAC, NNCodec); here the
rate is in the training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from server.refine.reparam.base import Reparam, Site, Values, float64

#: The share of symbols that are not zero is taken to be within these, so that the cost is finite.
_FEWEST, _MOST = 1e-4, 0.5


class Sparse(Reparam):
    """`W + step round(c)`; gradients pass straight through the rounding."""

    rate = 5e-2

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._step = site.frozen["step"].value
        self._c = site.zeros(*site.W.shape)

    def parameters(self) -> dict[str, nn.Parameter]:
        """See Reparam."""
        return {"c": self._c}

    def effective(self) -> Tensor:
        """See Reparam."""
        q = self._c + (self._c.round() - self._c).detach()
        return self.W.add(q, alpha=self._step)

    def penalty(self) -> Tensor:
        """About the bytes that the symbols take, times `rate`.

        A symbol that is not zero costs its sign and the surprise that it is there, which grows as
        such symbols become few: `1 + log2((1 - p) / p)` bits at a share `p` of them.
        """
        with torch.no_grad():
            p = (self._c.abs() > 0.5).float().mean().clamp(_FEWEST, _MOST)
            bytes_each = (1 + torch.log2((1 - p) / p)) / 8
        cost: Tensor = self.site.options.rate * bytes_each * self._c.abs().sum()
        return cost

    def values(self) -> Values:
        """`change` (o, i), on the grid."""
        return {"change": float64(self._c.round()) * self._step}
