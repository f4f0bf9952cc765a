"""Where training starts: the base's weights, in the shapes of the target.

A target may have another head than the base, or tensors that the base lacks. Where the indices of
old and new tensor overlap, the base's values are kept; new rows of a matrix start small, so that
the old outputs hardly move; what is wholly new starts as a fresh model would.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from server.refine.weights import State, load_into, state_of
from server.zoo.architecture import learnable
from shared.errors import BadWeights

#: New rows of a matrix start at this share of a fresh layer's values.
_NEW_ROWS = 0.1


@dataclass(frozen=True)
class Start:
    """A float32 module that holds the start values, and what is to be known of its tensors.

    `dtypes` are those in which the tensors will be stored; `reshaped` names the tensors that the
    base does not have in this shape. Names are first names: a tied weight appears once.
    """

    module: nn.Module
    dtypes: dict[str, torch.dtype]
    learnable: frozenset[str]
    reshaped: frozenset[str]


def start_from(base: State, module: nn.Module) -> Start:
    """Put `base` into a freshly built target `module`.

    Raises BadWeights `not_finite` where a learnable tensor holds NaN or infinities, and
    `schema_mismatch` where base and target have no tensor in common or differ in a dtype.
    """
    fresh = state_of(module)
    if not fresh.keys() & base.keys():
        raise BadWeights("schema_mismatch", "base and architecture have no tensor in common")
    names = learnable(module)
    state: State = {}
    for name, tensor in fresh.items():
        old = base.get(name)
        if old is not None and old.dtype.is_floating_point != tensor.dtype.is_floating_point:
            found = f"{name!r} is {old.dtype}, the architecture has {tensor.dtype}"
            raise BadWeights("schema_mismatch", found)
        if name in names and old is not None and not old.float().isfinite().all():
            raise BadWeights("not_finite", f"{name!r} holds NaN or infinite values")
        state[name] = tensor if old is None else _extended(old, tensor)
    dtypes = {name: base.get(name, tensor).dtype for name, tensor in fresh.items()}
    reshaped = {n for n, t in fresh.items() if n not in base or base[n].shape != t.shape}
    module.float()
    load_into(module, state)
    return Start(module, dtypes, frozenset(names), frozenset(reshaped))


def _extended(old: Tensor, fresh: Tensor) -> Tensor:
    """`old` in the shape of `fresh`."""
    if old.shape == fresh.shape:
        return old
    if old.dim() != fresh.dim():
        return fresh
    new = fresh.float() * (_NEW_ROWS if fresh.dim() > 1 else 1.0)
    common = tuple(slice(min(a, b)) for a, b in zip(old.shape, fresh.shape, strict=True))
    new[common] = old[common].float()
    return new
