"""Dense retraining: a change of every weight, in units of the weights' spread.

`direct` sends it, rounded; `Dense` also serves the lossless methods and what no factorisation does.
"""

from __future__ import annotations

from torch import Tensor, nn

from server.refine.reparam.base import Reparam, Site, Values, float64


class Dense(Reparam):
    """`W + std(W) c`, for `direct` and whatever no factorisation serves."""

    rate = 3e-2

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._change = site.zeros(*site.W.shape)

    def parameters(self) -> dict[str, nn.Parameter]:
        """See Reparam."""
        return {"change": self._change}

    def effective(self) -> Tensor:
        """See Reparam."""
        return self.W.add(self._change, alpha=self.site.unit)

    def values(self) -> Values:
        """`change` (o, i)."""
        return {"change": float64(self._change) * self.site.unit}


class Direct(Dense):
    """The same, rounded in the end."""

    def effective(self) -> Tensor:
        """See Reparam."""
        return self.W.add(self.rounded(self._change, self.site.unit), alpha=self.site.unit)

    def values(self) -> Values:
        """`change` (o, i)."""
        return self.sent("change", self._change, self.site.unit)
