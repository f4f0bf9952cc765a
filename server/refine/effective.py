"""The clone under training: base + change, one change per storage.

The effective weights are computed in float32 at each step and put into the module by
`torch.func.functional_call`, which also serves every alias of a tied weight. Parametrisations of
torch would break tied weights and deep copies, and rename the tensors of the state dict.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from server.refine.price import Price
from server.refine.recipe import Recipe
from server.refine.reparam import REPARAMS, Dense, Reparam, Site
from server.refine.start import Start
from server.refine.weights import State, state_of
from shared import methods
from shared.errors import BadMethod
from shared.methods.base import LossyMethod


@dataclass(frozen=True)
class Plan:
    """How matrices are learnt: a method, its parsed options, and what the recipe says of them."""

    method: methods.Method
    options: Any
    recipe: Recipe


@dataclass(frozen=True)
class Trained:
    """A parameter, its highest learning rate, and whether weight decay pulls at it."""

    name: str
    parameter: nn.Parameter
    rate: float
    decayed: bool


class Clone:
    """A model whose weights are base + change.

    `matrices` are the parametrised ones by first name, `vectors` all other learnable tensors, which
    are trained as they are. All else stays in the module; BatchNorm's statistics move there.
    """

    def __init__(
        self,
        start: Start,
        matrices: dict[str, Reparam],
        vectors: dict[str, nn.Parameter],
        vector_rate: float,
        price: Price | None = None,
    ) -> None:
        self.module, self.dtypes = start.module, start.dtypes
        self.matrices, self.vectors = matrices, vectors
        self._vector_rate, self.price = vector_rate, price
        self._shapes = {n: t.shape for n, t in start.module.state_dict().items()}

    def trained(self) -> list[Trained]:
        """Everything that is trained, named `tensor` or `tensor/part`."""
        parts = [
            Trained(f"{name}/{part}", parameter, matrix.rate, part not in matrix.undecayed)
            for name, matrix in self.matrices.items()
            for part, parameter in matrix.parameters().items()
        ]
        return parts + [
            Trained(name, parameter, self._vector_rate, parameter.dim() > 1)
            for name, parameter in self.vectors.items()
        ]

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name."""
        return {trained.name: trained.parameter for trained in self.trained()}

    def weights(self, bfloat16: bool = False) -> State:
        """The effective learnable tensors, differentiable, as they would be stored.

        With `bfloat16`, a change may be as coarse as that; what it is added to is not.
        """
        made: State = {}
        for name, matrix in self.matrices.items():
            matrix.bfloat16 = bfloat16
            made[name] = _as_stored(matrix.effective().view(self._shapes[name]), self.dtypes[name])
        return made | dict(self.vectors)

    def __call__(self, images: Tensor, bfloat16: bool = False) -> Tensor:
        """Images (N, C, H, W) -> logits (N, classes), float32.

        `bfloat16` is the arithmetic of the network and of large products in changes. Changes are
        added to the base in float32 all the same, which small ones would not survive otherwise.
        """
        weights = dict(self.weights(bfloat16))
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
            logits: Tensor = functional_call(self.module, weights, (images,))
        return logits.float()

    def round(self, rounding: bool) -> None:
        """Whether what is trained is rounded as it will be sent."""
        for matrix in self.matrices.values():
            matrix.rounding = rounding

    def penalty(self) -> Tensor | float:
        """What is added to the loss for the bytes that the change takes."""
        costs = [matrix.cost() for matrix in self.matrices.values()]
        paid = [cost for cost in costs if cost is not None]
        return self.price.of(paid) if self.price is not None and paid else 0.0

    def has_shape_of(self, name: str, tensor: Tensor | None) -> bool:
        """Whether a tensor of the clone has the shape of another."""
        return tensor is not None and tensor.shape == self._shapes[name]

    @contextlib.contextmanager
    def applied(self) -> Iterator[nn.Module]:
        """The module with the effective weights inside, for measuring."""
        with torch.no_grad():
            own = dict(self.module.named_parameters())
            for name, tensor in self.weights().items():
                own[name].copy_(tensor)
        yield self.module

    def state(self) -> State:
        """All tensors by first names, on the CPU; float32 where they are learnable."""
        with self.applied() as module:
            return state_of(module)


def clone_for(
    start: Start,
    plan: Plan,
    device: torch.device,
    sensitivities: Mapping[str, float] | None = None,
) -> Clone:
    """A clone that learns matrices by the plan's method, and the other tensors as they are."""
    module = start.module.to(device)
    module.requires_grad_(False)
    state = module.state_dict()
    matrices: dict[str, Reparam] = {}
    vectors: dict[str, nn.Parameter] = {}
    for name in sorted(start.learnable):
        if state[name].dim() < 2:
            if plan.recipe.vectors or name in start.reshaped:
                vectors[name] = nn.Parameter(state[name].clone())
        elif plan.recipe.matrices or name in start.reshaped:
            kept = name not in start.reshaped
            felt = (sensitivities or {}).get(name)
            matrices[name] = _reparam(name, state[name], plan, device, felt, by_method=kept)
    price = None
    if isinstance(plan.options, methods.SparseOptions):
        price = Price(plan.options.rate, plan.options.bytes, device)
    return Clone(start, matrices, vectors, plan.recipe.vector_rate, price)


def dense_clone(start: Start, rate: float, device: torch.device) -> Clone:
    """A clone that learns every tensor as it is, at one rate: training from scratch."""
    module = start.module.to(device)
    module.requires_grad_(False)
    state = module.state_dict()
    vectors = {name: nn.Parameter(state[name].clone()) for name in sorted(start.learnable)}
    return Clone(start, {}, vectors, rate)


def _reparam(
    name: str,
    weight: Tensor,
    plan: Plan,
    device: torch.device,
    sensitivity: float | None,
    by_method: bool,
) -> Reparam:
    """The method's parametrisation, or a dense change where that is smaller or the only way."""
    W = weight.reshape(weight.shape[0], -1).cpu().double().numpy()
    dense = Dense(Site(W, name, plan.options, {}, plan.recipe.seed, device))
    method = plan.method
    if not by_method:
        return dense
    if not isinstance(method, LossyMethod) or method.id == "direct":
        site = Site(W, name, plan.options, {}, plan.recipe.seed, device)
        return _at_rate(REPARAMS[method.id](site), plan)
    if not method.every_weight and method.count(W.shape[0], W.shape[1], plan.options) >= W.size:
        return dense
    try:
        frozen = method.prepare(W, name, plan.options)
    except BadMethod:
        return dense
    site = Site(W, name, plan.options, frozen, plan.recipe.seed, device, sensitivity)
    return _at_rate(REPARAMS[method.id](site), plan)


def _at_rate(reparam: Reparam, plan: Plan) -> Reparam:
    """With the recipe's learning rate, where it gives one, instead of the method's own."""
    reparam.rate = plan.recipe.learning_rate or reparam.rate
    return reparam


def _as_stored(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounded to the stored dtype, gradients passing straight through.

    A low-precision weight swallows small changes; training has to see that.
    """
    if dtype in (torch.float32, torch.float64):
        return weight
    return weight + (weight.to(dtype).float() - weight).detach()
