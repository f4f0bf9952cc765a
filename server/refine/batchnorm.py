"""BatchNorm under updates: statistics re-estimated, folded away, and unfolded again.

An update moves the statistics that BatchNorm has stored. They need not travel: with mu0, v0 and the
convolution's bias b0 left on the device as they are, gamma and beta can say the same
(docs/architecture.md). With mu2, v2, b2 of the new weights and a = gamma / sqrt(v2 + eps):

    gamma' = a sqrt(v0 + eps)        beta' = beta + a (b2 - mu2) - a (b0 - mu0)

Such weights predict the same, but cannot be trained on: in training mode BatchNorm uses the batch's
own statistics, which are those of mu2, v2. So a training first *unfolds* its clone. The statistics
for that are kept by the server beside each refined version, in a safetensors file with the two
tensors `<module>.running_mean` and `<module>.running_var` per BatchNorm (mu2 is taken relative to
b0). Without such a file they are observed while the folded weights predict training data.

All arithmetic here is float64.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from server.refine.batches import Batches
from server.refine.weights import State

#: Images that unfolding without stored statistics is estimated from.
SAMPLE = 4096
_BATCH = 500


@dataclass(frozen=True)
class Norm:
    """A BatchNorm with statistics: its place, and the bias in front of it that it absorbs."""

    name: str
    eps: float
    foldable: bool  # it has gamma and beta
    bias: str | None

    @property
    def mean(self) -> str:
        """Name of the running mean."""
        return f"{self.name}.running_mean"

    @property
    def var(self) -> str:
        """Name of the running variance."""
        return f"{self.name}.running_var"

    @property
    def gamma(self) -> str:
        """Name of the scale."""
        return f"{self.name}.weight"

    @property
    def beta(self) -> str:
        """Name of the shift."""
        return f"{self.name}.bias"


def find_norms(module: nn.Module, images: Tensor) -> list[Norm]:
    """Every BatchNorm with statistics, with the bias before it where one can be absorbed.

    Whose output feeds a BatchNorm is seen in a forward pass of `images`; that nothing else uses it
    is proven by moving bias and mean together, which must not change any output. A bias that is not
    absorbed is sent like any other.
    """
    feeders = _feeders(module, images)
    probe = copy.deepcopy(module).double().eval()
    images = images.double()
    found = []
    for name, norm in module.named_modules():
        if not isinstance(norm, _BatchNorm) or norm.running_mean is None:
            continue
        feeder = feeders.get(name)
        absorbs = feeder is not None and _absorbs(probe, feeder, name, images)
        bias = f"{feeder}.bias" if absorbs else None
        found.append(Norm(name, norm.eps, bool(norm.affine), bias))
    return found


def _feeders(module: nn.Module, images: Tensor) -> dict[str, str]:
    """BatchNorm -> the layer with a bias whose very output it takes; both are called once."""
    made: dict[str, list[Tensor]] = {}
    taken: dict[str, list[Tensor]] = {}

    def keep(into: dict[str, list[Tensor]], name: str, tensor: Any) -> None:
        into.setdefault(name, []).append(tensor)

    hooks = []
    for name, part in module.named_modules():
        if isinstance(part, _BatchNorm):
            hooks.append(
                part.register_forward_pre_hook(lambda _m, args, n=name: keep(taken, n, args[0]))
            )
        elif getattr(part, "bias", None) is not None and not list(part.children()):
            hooks.append(
                part.register_forward_hook(lambda _m, _args, out, n=name: keep(made, n, out))
            )
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            module(images)
    finally:
        module.train(training)
        for hook in hooks:
            hook.remove()
    makers = {id(outputs[0]): name for name, outputs in made.items() if len(outputs) == 1}
    pairs = {n: makers.get(id(inputs[0])) for n, inputs in taken.items() if len(inputs) == 1}
    return {norm: feeder for norm, feeder in pairs.items() if feeder is not None}


def _absorbs(probe: nn.Module, feeder: str, norm: str, images: Tensor) -> bool:
    """Whether moving the feeder's bias and the norm's mean by the same leaves every output."""
    bias: Any = probe.get_submodule(feeder).bias
    part: Any = probe.get_submodule(norm)
    if bias.shape != part.running_mean.shape:
        return False
    with torch.no_grad():
        try:
            before = probe(images)
        except RuntimeError:  # it casts to another precision itself: nothing can be proven
            return False
        move = (part.running_var + part.eps).sqrt()
        bias += move
        part.running_mean += move
        after = probe(images)
        bias -= move
        part.running_mean -= move
    scale = float(before.abs().max()) + 1.0
    return bool((before - after).abs().max() <= 1e-9 * scale)


def reestimate(module: nn.Module, data: Batches, batch: int = _BATCH) -> None:
    """Replace the running statistics by the mean over whole batches of `data`, unaugmented.

    `num_batches_tracked` stays.
    """
    norms = [
        m for m in module.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None
    ]
    if not norms:
        return
    kept = [(m.momentum, _tracked(m)) for m in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for images in data.mixed(batch, len(data)):
            module(images)
    for norm, (momentum, tracked) in zip(norms, kept, strict=True):
        norm.momentum = momentum
        if norm.num_batches_tracked is not None and tracked is not None:
            norm.num_batches_tracked.copy_(tracked)
    module.eval()


def observe(module: nn.Module, data: Batches, batch: int = _BATCH) -> State:
    """Mean and variance of what enters each BatchNorm while the module predicts a sample.

    Unlike `reestimate`, it relies on the stored statistics, so it is right for folded weights,
    which make sense with those only.
    """
    sums: dict[str, list[Tensor]] = {}

    def add(name: str, x: Tensor) -> None:
        rows = x.double().transpose(0, 1).flatten(1)  # (C, values)
        one = torch.full((1,), rows.shape[1], dtype=torch.float64, device=x.device)
        parts = [one, rows.sum(1), rows.square().sum(1)]
        if name in sums:
            parts = [a + b for a, b in zip(sums[name], parts, strict=True)]
        sums[name] = parts

    hooks = [
        part.register_forward_pre_hook(lambda _m, args, n=name: add(n, args[0]))
        for name, part in module.named_modules()
        if isinstance(part, _BatchNorm) and part.running_mean is not None
    ]
    module.eval()
    with torch.no_grad():
        for images in data.mixed(batch, SAMPLE):
            module(images)
    for hook in hooks:
        hook.remove()
    found: State = {}
    for name, (count, total, squares) in sums.items():
        mean = total / count
        spread = (squares / count - mean.square()).clamp(min=0) * count / (count - 1).clamp(min=1)
        found[f"{name}.running_mean"], found[f"{name}.running_var"] = mean, spread
    return found


def _tracked(norm: _BatchNorm) -> Tensor | None:
    counter = norm.num_batches_tracked
    return None if counter is None else counter.clone()


def fold(
    new: Mapping[str, Tensor], base: Mapping[str, Tensor], norms: list[Norm]
) -> tuple[State, State]:
    """The tensors that folding changes (float64), and the statistics to keep for unfolding.

    `new` holds the new tensors with their own statistics, `base` those on the device. Statistics
    and biases come back as the base's, gamma and beta as those that make up for it. A BatchNorm
    that the base lacks in this shape, or that has no gamma, keeps its new statistics: they travel.
    """
    changed: State = {}
    statistics: State = {}
    for norm in norms:
        if not norm.foldable or norm.var not in base or base[norm.var].shape != new[norm.var].shape:
            continue
        mu0, v0 = base[norm.mean].double(), base[norm.var].double()
        mu2, v2 = new[norm.mean].double(), new[norm.var].double()
        shift = torch.zeros_like(mu0)
        if norm.bias is not None:
            shift = new[norm.bias].double() - base[norm.bias].double()  # b2 - b0
            changed[norm.bias] = base[norm.bias].double()
        a = new[norm.gamma].double() / (v2 + norm.eps).sqrt()
        changed[norm.gamma] = a * (v0 + norm.eps).sqrt()
        changed[norm.beta] = new[norm.beta].double() + a * (shift - mu2 + mu0)
        changed[norm.mean], changed[norm.var] = mu0, v0
        statistics[norm.mean], statistics[norm.var] = mu2 - shift, v2
    return changed, statistics


def unfold(
    held: Mapping[str, Tensor], statistics: Mapping[str, Tensor], norms: list[Norm]
) -> State:
    """The tensors (float64) of the same function with `statistics` as the stored ones."""
    changed: State = {}
    for norm in norms:
        if not norm.foldable or norm.mean not in statistics or norm.var not in statistics:
            continue
        mu0, v0 = held[norm.mean].double(), held[norm.var].double()
        mu2, v2 = statistics[norm.mean].double(), statistics[norm.var].double()
        gamma, beta = held[norm.gamma].double(), held[norm.beta].double()
        changed[norm.gamma] = gamma * ((v2 + norm.eps) / (v0 + norm.eps)).sqrt()
        changed[norm.beta] = beta + gamma * (mu2 - mu0) / (v0 + norm.eps).sqrt()
        changed[norm.mean], changed[norm.var] = mu2, v2
    return changed
