"""`ml`, `ml_delta`: a new mapping onto frozen base filters (Chen et al. 2022, eq. 12-13).

The rows of `R` have length 1, so `L = std(W) sqrt(i) l` makes a step of `l` as large in the weights
as elsewhere. The paper's form starts at the projection of `W`, the delta form at `W`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from server.refine.reparam.base import Reparam, Site, Values, float64


class MappingLearning(Reparam):
    """`(L0 + std(W) sqrt(i) l) R`, with `L0 R` the projection of `W`."""

    rate = 1e-2

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        R = site.frozen["R"]  # (r, i)
        self._R = site.tensor(R)
        self._scale = site.unit * math.sqrt(site.W.shape[1])
        self._start = site.W @ R.T  # (o, r)
        self._projection = site.tensor(self._start @ R)
        self._l = site.zeros(site.W.shape[0], R.shape[0])

    def parameters(self) -> dict[str, nn.Parameter]:
        """See Reparam."""
        return {"l": self._l}

    def effective(self) -> Tensor:
        """See Reparam."""
        if not self.rounding:
            return torch.addmm(self._projection, self._l, self._R, alpha=self._scale)
        return self.rounded(self._new(), 1.0) @ self._R

    def values(self) -> Values:
        """`L` (o, r)."""
        if not self.rounding:
            return {"L": self._start + float64(self._l) * self._scale}
        return self.sent("L", self._new(), 1.0)

    def _new(self) -> Tensor:
        return self.site.tensor(self._start) + self._l * self._scale


class MappingLearningDelta(MappingLearning):
    """`W + std(W) sqrt(i) l R`."""

    def effective(self) -> Tensor:
        """See Reparam."""
        return torch.addmm(self.W, self.rounded(self._l, self._scale), self._R, alpha=self._scale)

    def values(self) -> Values:
        """`L` (o, r), of the change."""
        return self.sent("L", self._l, self._scale)
