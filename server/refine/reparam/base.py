"""The training half of a method: one weight matrix W (o x i) as base and learnable parameters.

`shared.methods` says what the parameters are and what stays frozen; here they become torch
parameters in *dimensionless* form, so that one learning rate serves all parts and all layers: a
step of a given size changes every weight by about the same share of the spread of its matrix.

A parametrisation is one module of this package and one line in `REPARAMS`. It starts at the base
wherever the method's form can.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from server.refine.price import Cost
from shared.grid import MAX_K

Values = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Site:
    """Where a parametrisation is used: W float64 (o, i), the tensor's name, the run's seed.

    `sensitivity` is what `server.refine.sensitivity` says of the tensor, where the parametrisation
    asked for it.
    """

    W: NDArray[np.float64]
    name: str
    options: Any
    frozen: Mapping[str, Any]
    seed: int
    device: torch.device
    sensitivity: float | None = None

    def tensor(self, array: NDArray[Any]) -> Tensor:
        """A float32 copy on the training device."""
        return torch.tensor(array, dtype=torch.float32, device=self.device)

    def zeros(self, *shape: int) -> nn.Parameter:
        """A learnable float32 array that starts at 0."""
        return nn.Parameter(torch.zeros(shape, device=self.device))

    @property
    def unit(self) -> float:
        """Spread of the weights; that of a fresh layer where they are all equal."""
        spread = float(self.W.std())
        return spread if spread > 0 else 1 / math.sqrt(max(self.W.shape[1], 1))


class Reparam(abc.ABC):
    """A matrix under training."""

    #: The highest learning rate, where the recipe says none; found with Adam.
    rate: float = 3e-3
    #: Parameters that weight decay must not touch.
    undecayed: ClassVar[frozenset[str]] = frozenset()
    #: It wants to know how much the loss feels a change of each tensor.
    needs_sensitivity: ClassVar[bool] = False

    def __init__(self, site: Site) -> None:
        self.site = site
        self.W = site.tensor(site.W)  # (o, i)
        #: Whether what is trained is rounded as it will be sent; the loop says from when on.
        self.rounding = False
        #: Whether a large product may be made in bfloat16, before it is added to `W` in float32.
        self.bfloat16 = False

    @abc.abstractmethod
    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name, dimensionless."""

    @abc.abstractmethod
    def effective(self) -> Tensor:
        """The new weights (o, i), float32, differentiable."""

    def cost(self) -> Cost | None:
        """What it takes in bytes, where it is trained under that."""
        return None

    @abc.abstractmethod
    def values(self) -> Values:
        """The method's parameters as `shared.methods` names them, in the units of the weights."""

    def rounded(self, x: Tensor, unit: float, max_k: int = MAX_K) -> Tensor:
        """`x`, of which one is `unit` of weights, on the grid on which it will be sent.

        The gradient passes straight through. `x` itself before rounding begins.
        """
        if not self.rounding:
            return x
        with torch.no_grad():
            step = self._grid(x, unit, max_k) / unit
            off = (x / step).round_().mul_(step).sub_(x)
        return x + off

    def sent(self, name: str, x: Tensor, unit: float, max_k: int = MAX_K) -> Values:
        """A parameter as `values` gives it, with its step where it is rounded."""
        values = {name: float64(self.rounded(x, unit, max_k)) * unit}
        if self.rounding:
            values[f"{name}.step"] = float64(self._grid(x.detach(), unit, max_k))[None]
        return values

    def _grid(self, x: Tensor, unit: float, max_k: int) -> Tensor:
        """The step that `shared.grid.quantise` takes, exactly; without waiting for the device.

        A coarser one, by the root mean square of `x`, where the options give a grain.
        """
        top = (1 << (self.site.options.bits - 1)) - 1
        step = x.abs().max() / top
        if self.site.options.grain is not None:
            # Bits that the coder hardly feels, so that a few large values do not coarsen all.
            step = torch.maximum(step, self.site.options.grain * x.square().mean().sqrt())
        mantissa, exponent = torch.frexp(step * unit)
        bits = max_k.bit_length()
        k = torch.ceil(mantissa * (1 << bits))
        k = torch.where(k > max_k, torch.ceil(k / 2) * 2, k)
        step = torch.ldexp(k, exponent - bits)
        return step.clamp(min=torch.finfo(x.dtype).tiny)


def float64(tensor: Tensor) -> NDArray[np.float64]:
    """A detached float64 copy on the CPU."""
    return tensor.detach().cpu().double().numpy()
