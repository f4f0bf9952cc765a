"""`lru`: a low-rank change with a random side of signs (section 5.1; Konecny et al. 2016)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from server.refine.reparam.base import Reparam, Site, Values


class LowRankUpdate(Reparam):
    """`W + L R` with `L = std(W) / sqrt(r) l`, so that r random rows add up to one unit."""

    rate = 3e-2

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        R = site.frozen["R"]  # (r, i) of +1 and -1
        self._R = site.tensor(R)
        self._scale = site.unit / math.sqrt(R.shape[0])
        self._l = site.zeros(site.W.shape[0], R.shape[0])

    def parameters(self) -> dict[str, nn.Parameter]:
        """See Reparam."""
        return {"l": self._l}

    def effective(self) -> Tensor:
        """See Reparam."""
        return torch.addmm(self.W, self.rounded(self._l, self._scale), self._R, alpha=self._scale)

    def values(self) -> Values:
        """`L` (o, r)."""
        return self.sent("L", self._l, self._scale)
