"""An architecture: a factory, and what can be known of a model before it has any weights.

A tied weight has several names in a state dict and one storage. The schema has one entry per
storage, under the first name; the other names are its aliases.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from server.errors import BadModel
from shared.tensors import Schema, TensorSpec, schema_of

if TYPE_CHECKING:
    import torch
    from torch import nn

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Architecture:
    """A name and the factory behind it. `arguments` are the factory's keyword arguments."""

    name: str
    factory: Callable[..., nn.Module]

    def build(self, arguments: Arguments) -> nn.Module:
        """A new module with fresh weights, drawn from torch's global generator.

        Raises BadModel where the factory does not take the arguments, or makes something else.
        """
        from torch import nn

        try:
            inspect.signature(self.factory).bind(**arguments)
            module = self.factory(**arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            found = f"{self.name} with {dict(arguments)}: {error}"
            raise BadModel("unknown_architecture", found) from error
        if not isinstance(module, nn.Module):
            made = type(module).__name__
            raise BadModel("unknown_architecture", f"{self.name} makes no module but a {made}")
        return module

    def outline(self, arguments: Arguments) -> nn.Module:
        """As `build`, with shapes and dtypes alone: whatever a request asks for takes no memory.

        A factory that cannot be run so, as it reads its own weights, is built as it is.
        """
        import torch

        try:
            with torch.device("meta"):
                return self.build(arguments)
        except (BadModel, NotImplementedError):  # "Tensor.item() cannot be called on meta tensors"
            return self.build(arguments)

    def schema(self, arguments: Arguments) -> Schema:
        """The dtype and shape of each storage, by its first name."""
        module = self.outline(arguments)
        others = aliases(module)
        return schema_of(
            TensorSpec(name, dtype_name(tensor.dtype), tuple(tensor.shape))
            for name, tensor in module.state_dict().items()
            if name not in others
        )

    def aliases(self, arguments: Arguments) -> dict[str, str]:
        """Further names of tied weights -> the name in the schema."""
        return aliases(self.outline(arguments))

    def learnable(self, arguments: Arguments) -> set[str]:
        """The names in the schema that training changes: not buffers, not frozen parameters."""
        return learnable(self.outline(arguments))


def aliases(module: nn.Module) -> dict[str, str]:
    """Further names of tied parameters and shared buffers -> the first name."""
    first: dict[int, str] = {}
    found: dict[str, str] = {}
    named = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in named:
        if first.setdefault(id(tensor), name) != name:
            found[name] = first[id(tensor)]
    return found


def learnable(module: nn.Module) -> set[str]:
    """First names of the parameters that require gradients."""
    return {name for name, p in module.named_parameters() if p.requires_grad}


def dtype_name(dtype: torch.dtype) -> str:
    """The safetensors name of a torch dtype. Raises BadModel where there is none."""
    name = _NAMES.get(str(dtype).removeprefix("torch."))
    if name is None:
        raise BadModel("unknown_architecture", f"tensors of {dtype} cannot be stored")
    return name


_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
