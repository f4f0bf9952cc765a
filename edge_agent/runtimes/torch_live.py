"""A torch module that takes new weights while it runs. For the program; the agent never imports it.

    live = LiveModel(model.eval(), "/var/lib/weft-agent/models/digits")
    with serve({"digits": live}, "/run/digits/weft.sock"):
        while True:
            with live.lease() as model:
                answer = model(next_image())

New weights are mapped and compared with the module's own tensors while inferences go on. Only the
tensors that differ are copied into the module, in place, between two inferences: their addresses
stay, so compiled graphs and CUDA graphs go on. There is no second copy of the model: what is mapped
beside it is what differs. On CUDA the lease must span the inference, not only its start.

A module that does not fit the weights is refused, with the names of the tensors, before anything is
changed: other names (frozen or fused: its tensors are no longer what they were), other shapes or
dtypes, quantised or sparse tensors, tensors of inference mode, computed ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edge_agent.errors import RuntimeRefused
from edge_agent.runtimes.holder import Holder
from edge_agent.runtimes.mapped import MappedWeights
from shared.tensors import Array, Schema, TensorSpec, WeightsDigest, schema_of
from shared.weights import WeightsReader

_DTYPES = {
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
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
#: Integers by item size: comparing these compares the bits, where floats have -0.0 and NaN.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_NAMED = 20  # names in one message
_BATCH = 64

Predict = Callable[[nn.Module, Array], Sequence[int]]


class LiveModel(Holder[nn.Module]):
    """See the module, and `Holder` for the settings.

    `predict` gives the labels of golden samples, by the program's own way from input to answer; by
    default the module is called and the largest of its outputs taken.
    """

    def __init__(
        self,
        model: nn.Module,
        store: str | os.PathLike[str],
        *,
        check: Callable[[nn.Module], bool | str] | None = None,
        golden: bool = False,
        samples: Iterable[str | os.PathLike[str]] = (),
        predict: Predict | None = None,
        hold_seconds: float = 120.0,
    ) -> None:
        net = TorchNet(model, predict or top_labels)
        super().__init__(
            model,
            net,
            store,
            check=check,
            golden=golden,
            samples=samples,
            hold_seconds=hold_seconds,
        )


class TorchNet:
    """A module as `holder.Net` has it."""

    holds_copy = True

    def __init__(self, module: nn.Module, predict: Predict) -> None:
        self._module, self._predict = module, predict
        self._loaded: list[str] = []

    def change(self, path: Path, *, keep: bool) -> TorchChange:
        """See `holder.Net`."""
        tensors = _tensors(self._module)
        with WeightsReader(path) as reader:
            _check(self._module, tensors, reader.schema)
            mapped = MappedWeights(reader)
            _check_ties(mapped, tensors)
            pairs = []
            for name in reader.schema:
                new = torch.from_numpy(mapped.load(name)).view(tensors[name].dtype)
                if _same(tensors[name], new):
                    mapped.forget(name)
                else:
                    pairs.append((tensors[name].detach(), new))
            names = list(reader.schema)
        return TorchChange(pairs, keep, lambda: self._note(names))

    def digest(self) -> str:
        """See `holder.Net`; over the names that the weights file had."""
        tensors = _tensors(self._module)
        specs = schema_of(
            TensorSpec(name, _NAMES[tensors[name].dtype], tuple(tensors[name].shape))
            for name in self._loaded
        )
        digest = WeightsDigest()
        for name, spec in specs.items():
            digest.start(spec)
            plain = tensors[name].detach().cpu().contiguous()
            digest.update(plain.reshape(-1).view(torch.uint8).numpy())
        return digest.digest().hex()

    def labels(self, inputs: Array) -> list[int]:
        """See `holder.Net`; in evaluation mode."""
        was_training = self._module.training
        self._module.eval()
        try:
            return [int(label) for label in self._predict(self._module, inputs)]
        finally:
            self._module.train(was_training)

    def _note(self, names: list[str]) -> None:
        self._loaded = names


class TorchChange:
    """Tensors to be copied into live ones; with `keep`, what those hold now is remembered."""

    def __init__(
        self, pairs: list[tuple[Tensor, Tensor]], keep: bool, applied: Callable[[], None]
    ) -> None:
        self._pairs, self._applied = pairs, applied
        self._kept = [(live, live.clone()) for live, _ in pairs] if keep else []

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that differ."""
        return sum(new.numel() * new.element_size() for _, new in self._pairs)

    def apply(self) -> None:
        """Copy what differs."""
        _copy(self._pairs)
        self._applied()

    def undo(self) -> None:
        """Copy back what was there."""
        _copy(self._kept)

    def close(self) -> None:
        """Unmap."""
        self._pairs, self._kept = [], []


def top_labels(module: nn.Module, inputs: Array) -> list[int]:
    """The largest output of each input, float32 (N, ...), in batches on the module's device."""
    device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    found: list[int] = []
    with torch.inference_mode():
        for start in range(0, len(inputs), _BATCH):
            batch = torch.from_numpy(inputs[start : start + _BATCH]).to(device)
            found += module(batch).argmax(dim=-1).tolist()
    return found


def _copy(pairs: list[tuple[Tensor, Tensor]]) -> None:
    """In place. On a GPU, what was started before has ended first, and the copies at the end."""
    devices = {live.device for live, _ in pairs if live.is_cuda}
    for device in devices:
        torch.cuda.synchronize(device)
    with torch.no_grad():
        for live, new in pairs:
            live.copy_(new)
    for device in devices:
        torch.cuda.synchronize(device)


def _same(live: Tensor, new: Tensor) -> bool:
    """To the bit."""
    bits = _BITS[live.element_size()]
    return torch.equal(live.detach().cpu().view(bits), new.view(bits))


def _tensors(module: nn.Module) -> dict[str, Any]:
    """What the module holds, by the names that its weights file has."""
    return dict(module.state_dict(keep_vars=True))


def _identity(tensor: Tensor) -> tuple[Any, ...]:
    """Equal for tied tensors, which are the same elements under two names."""
    return tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def _check(module: nn.Module, tensors: dict[str, Any], given: Schema) -> None:
    """Raise RuntimeRefused, with the names, where the weights do not fit the module."""
    plain = {name: t for name, t in tensors.items() if _unusable(t) is None}
    own = {_identity(t) for t in [*module.parameters(), *module.buffers()] if _unusable(t) is None}
    fed = {_identity(plain[name]) for name in given if name in plain}
    faults = [
        f"{name!r} {fault}"
        for name, spec in given.items()
        if (fault := _misfit(tensors.get(name), spec, own))
    ]
    faults += [
        f"{name!r} is in the module and not in the weights"
        for name in tensors
        if name not in given and not (name in plain and _identity(plain[name]) in fed)
    ]
    if faults:
        more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise RuntimeRefused("refused", "; ".join(faults[:_NAMED]) + more)


def _misfit(tensor: Any, spec: TensorSpec, own: set[tuple[Any, ...]]) -> str | None:
    """Why a tensor of the module cannot take what the weights have under its name."""
    if tensor is None:
        return "is not in the module: is that frozen, or fused?"
    if fault := _unusable(tensor):
        return fault
    if _NAMES.get(tensor.dtype) != spec.dtype:
        return f"is {tensor.dtype} in the module and {spec.dtype} in the weights"
    if tuple(tensor.shape) != spec.shape:
        return f"is {list(tensor.shape)} in the module and {list(spec.shape)} in the weights"
    if _identity(tensor) not in own:
        return "is computed by the module, not held"
    return None


def _unusable(tensor: Any) -> str | None:
    """Why nothing can be copied into it."""
    if not isinstance(tensor, Tensor):
        return f"is packed in a {type(tensor).__name__}: is the module quantised?"
    if tensor.is_quantized or type(tensor) not in (Tensor, nn.Parameter):
        return f"is a {type(tensor).__name__} of {tensor.dtype}: is the module quantised?"
    if tensor.layout != torch.strided or tensor.is_meta:
        return f"has no elements of its own: {tensor.layout} on {tensor.device}"
    if tensor.is_inference():
        return "was made in inference mode, and cannot be changed"
    if any(step == 0 and n > 1 for step, n in zip(tensor.stride(), tensor.shape, strict=True)):
        return "is one element shown many times"
    return None


def _check_ties(mapped: MappedWeights, tensors: dict[str, Any]) -> None:
    """Raise RuntimeRefused where the weights differ between names that are one tensor here."""
    first: dict[tuple[Any, ...], str] = {}
    for name, spec in mapped.schema.items():
        other = first.setdefault(_identity(tensors[name]), name)
        if other == name or not spec.size:
            continue
        if mapped.array(name).tobytes() != mapped.array(other).tobytes():
            raise RuntimeRefused("refused", f"{name!r} and {other!r} are tied in the module only")
