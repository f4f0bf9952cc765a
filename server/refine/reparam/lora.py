"""`lora`: a low-rank change of which both factors are trained (Hu et al. 2022, section 4.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from server.refine.reparam.base import Reparam, Site, Values
from shared import prng
from shared.grid import MAX_FACTOR_K


class LowRankAdaptation(Reparam):
    """`W + L R` with `L = std(W) sqrt(i) l` and `R = r / sqrt(i)`.

    `l` starts at 0 and `r` at random, as `B` and `A` of the paper. Its factor alpha / r is part of
    the learning rate here.
    """

    rate = 1e-2

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        o, i = site.W.shape
        rank = min(site.options.rank, o, i)
        self._width = math.sqrt(i)
        self._unit = site.unit * self._width
        self._l = site.zeros(o, rank)
        draw = torch.Generator().manual_seed(prng.stream_key(site.seed, site.name) >> 1)
        self._r = nn.Parameter(torch.randn(rank, i, generator=draw).to(site.device))

    def parameters(self) -> dict[str, nn.Parameter]:
        """See Reparam."""
        return {"l": self._l, "r": self._r}

    def effective(self) -> Tensor:
        """See Reparam."""
        left = self.rounded(self._l, self._unit, MAX_FACTOR_K)
        right = self.rounded(self._r, 1 / self._width, MAX_FACTOR_K)
        # sqrt(i) of L and 1 / sqrt(i) of R cancel in the product.
        return torch.addmm(self.W, left, right, alpha=self.site.unit)

    def values(self) -> Values:
        """`L` (o, r), `R` (r, i)."""
        return {
            **self.sent("L", self._l, self._unit, MAX_FACTOR_K),
            **self.sent("R", self._r, 1 / self._width, MAX_FACTOR_K),
        }
