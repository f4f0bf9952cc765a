"""`ka`: new singular values and a rank-n augmentation (Chen et al. 2022, eq. 14-16).

`W + U0 diag(ds) V0^T + U' V'^T` with `ds = rms(s) g`, `U' = std(W) sqrt(i) u`, `V' = v / sqrt(i)`.
`u` starts at 0 and `v` at random: "all small random", as the paper has it, is a saddle for plain
gradient descent. The tail of the paper's `s'` is merged into `U'`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from server.refine.reparam.base import Reparam, Site, Values
from shared import prng
from shared.grid import MAX_FACTOR_K


class KnowledgeAugmentation(Reparam):
    """Learns `u`, `v`, and `g`: one number per cluster of equal singular values."""

    rate = 1e-2
    undecayed = frozenset({"g"})  # decay there would shrink or stretch the whole model

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        (o, i), n, frozen = site.W.shape, site.options.rank, site.frozen
        self._rms = float(np.sqrt(np.mean(np.square(frozen["s"])))) if frozen["s"].size else 0.0
        self._U0 = site.tensor(frozen["U0"])  # (o, m)
        self._V0t = site.tensor(frozen["V0"].T)  # (m, i)
        sizes = [size for _, size in frozen["ties"]]
        cluster = np.repeat(np.arange(len(sizes)), sizes)  # (m,)
        self._cluster = torch.tensor(cluster, device=site.device)
        self._free = site.tensor(frozen["free"] * self._rms)  # (m,)
        self._width = math.sqrt(i)
        self._unit = self.site.unit * self._width
        self._g = site.zeros(len(sizes))
        self._u = site.zeros(o, n)
        draw = torch.Generator().manual_seed(prng.stream_key(site.seed, site.name) >> 1)
        self._v = nn.Parameter(torch.randn(i, n, generator=draw).to(site.device))

    def parameters(self) -> dict[str, nn.Parameter]:
        """See Reparam."""
        return {"g": self._g, "u": self._u, "v": self._v}

    def _ds(self) -> Tensor:
        # The backward of indexing would sort, for clusters that hardly ever have two members.
        return self._g.index_select(0, self._cluster) * self._free  # (m,), in units of the weights

    def effective(self) -> Tensor:
        """See Reparam."""
        spectral = self._spectral(self._U0 * self.rounded(self._ds(), 1.0))
        u = self.rounded(self._u, self._unit, MAX_FACTOR_K)
        v = self.rounded(self._v, 1 / self._width, MAX_FACTOR_K)
        # sqrt(i) of U' and 1 / sqrt(i) of V' cancel in the product.
        return torch.addmm(spectral, u, v.T, alpha=self.site.unit)

    def _spectral(self, left: Tensor) -> Tensor:
        """`W + left V0^T` for `left` (o, m): the one product here that takes time."""
        if not self.bfloat16:
            return torch.addmm(self.W, left, self._V0t)
        return self.W + left.bfloat16() @ self._V0t.bfloat16()

    def values(self) -> Values:
        """`U` (o, n), `V` (i, n), `ds` (m,)."""
        return {
            **self.sent("U", self._u, self._unit, MAX_FACTOR_K),
            **self.sent("V", self._v, 1 / self._width, MAX_FACTOR_K),
            **self.sent("ds", self._ds(), 1.0),
        }
