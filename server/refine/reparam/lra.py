"""`lra`: both factors of a low-rank approximation are trained (Chen et al. 2022, eq. 5-8)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from server.refine.reparam.base import Reparam, Site, Values, float64
from shared.grid import MAX_FACTOR_K


class LowRankApproximation(Reparam):
    """`(L0 + std(W) sqrt(i) l) (R0 + r / sqrt(i))`, from the best approximation of `W`."""

    rate = 1e-2

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        L, R = site.frozen["L"], site.frozen["R"]
        self._width = math.sqrt(site.W.shape[1])
        self._start = (L, R)
        self._L0, self._R0 = site.tensor(L), site.tensor(R)
        self._l, self._r = site.zeros(*L.shape), site.zeros(*R.shape)

    def parameters(self) -> dict[str, nn.Parameter]:
        """See Reparam."""
        return {"l": self._l, "r": self._r}

    def effective(self) -> Tensor:
        """See Reparam."""
        L, R = self._factors()
        return self.rounded(L, 1.0, MAX_FACTOR_K) @ self.rounded(R, 1.0, MAX_FACTOR_K)

    def _factors(self) -> tuple[Tensor, Tensor]:
        L = self._L0.add(self._l, alpha=self.site.unit * self._width)  # (o, r)
        return L, self._R0.add(self._r, alpha=1 / self._width)

    def values(self) -> Values:
        """`L` (o, r), `R` (r, i)."""
        if self.rounding:
            L, R = self._factors()
            return self.sent("L", L, 1.0, MAX_FACTOR_K) | self.sent("R", R, 1.0, MAX_FACTOR_K)
        return {
            "L": self._start[0] + float64(self._l) * (self.site.unit * self._width),
            "R": self._start[1] + float64(self._r) / self._width,
        }
