"""Weights files <-> torch tensors, without pickle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from server.zoo.architecture import aliases, dtype_name
from shared.tensors import Array
from shared.weights import WeightsReader, write_weights

State: TypeAlias = dict[str, Tensor]

_TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def load_state(path: str | os.PathLike[str]) -> State:
    """All tensors of a weights file in their own dtypes. Raises BadWeights."""
    with WeightsReader(path) as reader:
        return {n: from_storage(reader.read(n), s.dtype) for n, s in reader.schema.items()}


def save_state(path: str | os.PathLike[str], state: Mapping[str, Tensor]) -> None:
    """Write a weights file; the same tensors give the same bytes."""
    tensors = {n: (dtype_name(t.dtype), to_storage(t)) for n, t in state.items()}
    write_weights(Path(path), tensors)


def from_storage(elements: Array, dtype: str) -> Tensor:
    """Elements in storage form (see `shared.tensors`) as a tensor of the dtype they stand for."""
    flat = torch.from_numpy(np.array(elements).reshape(-1))
    return flat.view(_TORCH[dtype]).reshape(elements.shape)


def to_storage(tensor: Tensor) -> Array:
    """A tensor in storage form; the inverse of `from_storage`."""
    plain = tensor.detach().cpu().contiguous()
    if plain.dtype == torch.bfloat16:
        return plain.view(torch.uint16).numpy()
    if plain.dtype in (torch.float8_e4m3fn, torch.float8_e5m2, torch.bool):
        return plain.view(torch.uint8).numpy()
    return plain.numpy()


def state_of(module: nn.Module) -> State:
    """One detached copy per storage, by first names, on the CPU."""
    others = aliases(module)
    return {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in module.state_dict().items()
        if name not in others
    }


def load_into(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy `state` (first names) into the module, casting to the module's dtypes."""
    own = dict(module.state_dict(keep_vars=True))
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)
