"""What a training needs to go on after an interruption: one safetensors file.

Tensors are the trained parameters, the module's buffers and the optimizer's state; the history of
the finished epochs and the fingerprint of the run are JSON in the file's metadata. One file,
renamed into place: there is no moment in which half of it is new.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from server.refine.effective import Clone
from server.refine.weights import from_storage, to_storage
from server.zoo.architecture import dtype_name
from shared.errors import BadWeights
from shared.weights import WeightsReader, write_weights

_KEY = "weft_checkpoint"

History = list[dict[str, float | None]]


class Checkpoint:
    """The checkpoint of one run in a folder; `run` is JSON that says what is being trained.

    A checkpoint of another run, or a damaged one, is as good as none.
    """

    def __init__(self, folder: Path, run: dict[str, Any], name: str = "checkpoint") -> None:
        self._path = folder / f"{name}.safetensors"
        self._run = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()

    def save(self, clone: Clone, optimizer: torch.optim.Optimizer, history: History) -> None:
        """Replace the checkpoint."""
        tensors = _model(clone) | _optimizer(optimizer)
        metadata = {_KEY: json.dumps({"run": self._run, "history": history})}
        temporary = self._path.with_suffix(".part")
        stored = {n: (dtype_name(t.dtype), to_storage(t)) for n, t in tensors.items()}
        write_weights(temporary, stored, metadata)
        _sync(temporary)
        temporary.replace(self._path)
        _sync(self._path.parent)

    def restore(self, clone: Clone, optimizer: torch.optim.Optimizer) -> History:
        """Put the checkpoint into clone and optimizer; returns the epochs that are done."""
        try:
            with WeightsReader(self._path) as reader:
                about = json.loads(reader.metadata.get(_KEY, "{}"))
                if about.get("run") != self._run:
                    return []
                tensors = {
                    n: from_storage(reader.read(n), s.dtype) for n, s in reader.schema.items()
                }
        except (BadWeights, ValueError):
            return []
        with torch.no_grad():
            for name, tensor in _model(clone).items():
                tensor.copy_(tensors[name])
        _restore_optimizer(optimizer, tensors)
        history: History = about["history"]
        return history


def _model(clone: Clone) -> dict[str, Tensor]:
    """The tensors themselves, not copies."""
    parameters = {f"parameter/{n}": p.data for n, p in clone.parameters().items()}
    if clone.price is not None:
        parameters["price"] = clone.price.state
    return parameters | {f"buffer/{n}": b for n, b in clone.module.named_buffers()}


def _optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State `key` of the parameter with number `n` as `optimizer/n/key`."""
    return {
        f"optimizer/{number}/{key}": value
        for number, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if value is not None
    }


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            number, _, key = rest.partition("/")
            state.setdefault(int(number), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _sync(path: Path) -> None:
    """Make a file, or a folder's entries, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
