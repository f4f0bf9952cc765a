"""`rm`: the weights that a seeded mask selects (section 5.1; Konecny et al. 2016)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from server.refine.reparam.base import Reparam, Site, Values


class RandomMask(Reparam):
    """`W` with `std(W) c` added at the selected places; only those have an optimizer's state."""

    rate = 3e-2

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        places = np.flatnonzero(site.frozen["mask"])
        self._places = torch.tensor(places, device=site.device)
        self._c = site.zeros(places.size)

    def parameters(self) -> dict[str, nn.Parameter]:
        """See Reparam."""
        return {"c": self._c}

    def effective(self) -> Tensor:
        """See Reparam."""
        flat = self.W.reshape(-1).index_add(
            0, self._places, self.rounded(self._c, self.site.unit), alpha=self.site.unit
        )
        return flat.reshape(self.W.shape)

    def values(self) -> Values:
        """`values` (k,), changes in row-major order."""
        return self.sent("values", self._c, self.site.unit)
