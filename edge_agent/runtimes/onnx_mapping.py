"""Which tensor of the weights feeds which initializer of an ONNX model; numpy alone is needed.

An initializer is fed by the tensor of the same name, as it stands. `OnnxMapping` says where that is
not so; it is given in Python, or as a file (TOML or JSON) beside the model:

    ignored = ["auxiliary.*"]               # tensors that the graph does without
    constants = ["scale"]                   # initializers that stay as they were exported

    [initializers]
    "decoder.weight" = "embedding.weight"   # tied weights: the file has them once
    "onnx::MatMul_12" = { tensor = "fc.weight", transpose = [1, 0] }

Nothing is guessed. An initializer that nothing feeds, one that has another dtype or shape than what
feeds it, and a tensor that feeds nothing are refused, all by name: each of them would be a network
of mixed versions. Two rules save words. `num_batches_tracked` of BatchNorm counts the steps of
training: it is ignored where nothing asks for it. An initializer of 64-bit integers with one
dimension at most is a shape or a list of axes that the exporter worked out: it stays, unless
`initializers` names it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from edge_agent.errors import RuntimeRefused
from shared.errors import BadConfig
from shared.tensors import Array, Schema, TensorSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NAMED = 20  # names in one message
_COUNTERS = ("num_batches_tracked", "*.num_batches_tracked")


class Source(BaseModel):
    """A tensor of the weights, and the order of its dimensions in the graph (numpy's `axes`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensor: str
    transpose: tuple[int, ...] | None = None

    @field_validator("transpose")
    @classmethod
    def _permutation(cls, axes: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if axes is not None and sorted(axes) != list(range(len(axes))):
            raise ValueError(f"{list(axes)} is no order of {len(axes)} dimensions")
        return axes

    def shape(self, given: tuple[int, ...]) -> tuple[int, ...] | None:
        """What a tensor of that shape becomes; None where it has other dimensions."""
        if self.transpose is None:
            return given
        return tuple(given[axis] for axis in self.transpose) if self._fits(given) else None

    def arrange(self, elements: Array) -> Array:
        """The tensor as the graph takes it, contiguous; a copy only where it is transposed."""
        if self.transpose is None:
            return elements
        return np.asarray(elements.transpose(self.transpose), order="C")

    def _fits(self, given: tuple[int, ...]) -> bool:
        return len(self.transpose or ()) == len(given)


class OnnxMapping(BaseModel):
    """See the module. Names in `ignored` and `constants` may hold `*`, `?` and `[...]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    initializers: dict[str, Source] = {}
    ignored: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()

    @field_validator("initializers", mode="before")
    @classmethod
    def _names_alone(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {k: {"tensor": v} if isinstance(v, str) else v for k, v in given.items()}

    def fed(self, graph: Schema) -> dict[str, Source]:
        """Initializer -> what feeds it; those that stay as they are, are left out."""
        return {
            name: self.initializers.get(name, Source(tensor=name))
            for name, spec in graph.items()
            if name in self.initializers or not (_named(name, self.constants) or _is_shape(spec))
        }

    def check(self, graph: Schema, weights: Schema) -> None:
        """Raise RuntimeRefused, with the names, where the weights do not fit the graph."""
        sources = self.fed(graph)
        faults = [*self._faults(graph, weights, sources), *self._unused(weights, sources)]
        if faults:
            more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
            raise RuntimeRefused("refused", "; ".join(faults[:_NAMED]) + more)

    def _faults(self, graph: Schema, weights: Schema, sources: dict[str, Source]) -> Iterator[str]:
        for name in self.initializers:
            if name not in graph:
                yield f"the model has no initializer {name!r}"
        for name, source in sources.items():
            fault = _misfit(graph[name], weights.get(source.tensor), source)
            if fault:
                yield fault

    def _unused(self, weights: Schema, sources: dict[str, Source]) -> Iterator[str]:
        used = {source.tensor for source in sources.values()}
        for name in weights:
            if name not in used and not _named(name, (*self.ignored, *_COUNTERS)):
                yield f"the tensor {name!r} feeds no initializer (was it folded at the export?)"


def load_mapping(path: Path) -> OnnxMapping:
    """The mapping in a `.toml` or `.json` file; raises BadConfig."""
    try:
        text = path.read_text("utf-8")
        given = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        return OnnxMapping.model_validate(given)
    except FileNotFoundError as error:
        raise BadConfig("missing", f"{path}: no such mapping") from error
    except OSError as error:
        raise BadConfig("invalid", f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadConfig("invalid", f"{path}: {place}: {first['msg']}") from error
    except ValueError as error:
        raise BadConfig("invalid", f"{path}: {error}") from error


def _misfit(spec: TensorSpec, tensor: TensorSpec | None, source: Source) -> str | None:
    """What is wrong with feeding an initializer so."""
    if tensor is None:
        return f"no tensor {source.tensor!r} for the initializer {spec.name!r}"
    if tensor.dtype != spec.dtype:
        return f"{spec.name!r} is {spec.dtype} in the model and {tensor.dtype} in the weights"
    shape = source.shape(tensor.shape)
    if shape != spec.shape:
        given = list(tensor.shape)
        order = f" in the order {list(source.transpose)}" if source.transpose is not None else ""
        return f"{spec.name!r} is {list(spec.shape)} in the model and {given}{order} in the weights"
    return None


def _is_shape(spec: TensorSpec) -> bool:
    return spec.dtype == "I64" and len(spec.shape) <= 1


def _named(name: str, patterns: Collection[str]) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)
