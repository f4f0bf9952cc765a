"""An ONNX model without its weights, and what it is fed with.

The model is read once. What weights can feed is taken out of it, and ONNX Runtime is told that it
lies elsewhere: for each version a session is built of what is left and of tensors in memory
(external initializers). What stays, such as shapes that the exporter computed, stays inside.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import TensorProto, external_data_helper, numpy_helper

from edge_agent.errors import RuntimeRefused
from edge_agent.runtimes.onnx_mapping import OnnxMapping, Source
from shared.errors import BadConfig
from shared.tensors import STORAGE, Array, Schema, TensorSpec, WeightsDigest, schema_of
from shared.weights import WeightsReader

#: A graph as bytes, and options to which more may be added -> a session.
OpenSession = Callable[[bytes, onnxruntime.SessionOptions], onnxruntime.InferenceSession]

#: ONNX element type -> safetensors dtype.
DTYPES: dict[int, str] = {
    TensorProto.DOUBLE: "F64",
    TensorProto.FLOAT: "F32",
    TensorProto.FLOAT16: "F16",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.FLOAT8E4M3FN: "F8_E4M3",
    TensorProto.FLOAT8E5M2: "F8_E5M2",
    TensorProto.INT64: "I64",
    TensorProto.INT32: "I32",
    TensorProto.INT16: "I16",
    TensorProto.INT8: "I8",
    TensorProto.UINT64: "U64",
    TensorProto.UINT32: "U32",
    TensorProto.UINT16: "U16",
    TensorProto.UINT8: "U8",
    TensorProto.BOOL: "BOOL",
}
_ELEMENT_TYPES = {dtype: element for element, dtype in DTYPES.items()}
_NOT_IN_NUMPY = frozenset({"BF16", "F8_E4M3", "F8_E5M2"})
_NOWHERE = "weights"  # where the graph says that its initializers lie; nobody looks there


class Graph:
    """An ONNX model without the weights that are fed: `schema` says what it wants.

    Raises BadConfig where the file is no model.
    """

    def __init__(self, path: Path, mapping: OnnxMapping) -> None:
        model = _load_model(path)
        initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.schema: Schema = schema_of(_spec(tensor) for tensor in initializers.values())
        self.sources = mapping.fed(self.schema)
        self._mapping = mapping
        for name, tensor in initializers.items():
            if name in self.sources:
                _empty(tensor)
            elif external_data_helper.uses_external_data(tensor):
                external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
                tensor.data_location = TensorProto.DEFAULT
        self._bytes = model.SerializeToString()

    def check(self, weights: Schema) -> None:
        """Raise RuntimeRefused, with all names, where the weights do not fit."""
        self._mapping.check(self.schema, weights)

    def open(self, tensors: Mapping[str, Array], open_session: OpenSession) -> Any:
        """A session with the tensors, which are copied. Raises RuntimeRefused."""
        options = onnxruntime.SessionOptions()
        names = list(self.sources)
        values = [_value(tensors[name], self.schema[name].dtype) for name in names]
        options.add_external_initializers(names, values)
        try:
            return open_session(self._bytes, options)
        except Exception as error:  # ONNX Runtime's have no common root
            raise RuntimeRefused("refused", f"no session: {error}") from error


def load(reader: WeightsReader, sources: Mapping[str, Source]) -> tuple[str, dict[str, Array]]:
    """The weights digest, and each initializer's tensor; each is read once."""
    fed: dict[str, list[str]] = {}
    for initializer, source in sources.items():
        fed.setdefault(source.tensor, []).append(initializer)
    digest, tensors = WeightsDigest(), {}
    for name, spec in reader.schema.items():
        elements = reader.read(name)
        digest.start(spec)
        digest.update(elements)
        for initializer in fed.get(name, ()):
            tensors[initializer] = sources[initializer].arrange(elements)
    return digest.digest().hex(), tensors


def differing(
    model: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    mapping: OnnxMapping | None = None,
) -> list[str]:
    """The initializers whose values in the model are not those that the weights would give them.

    For a model that was exported from these very weights the list is empty, or the mapping is
    wrong, or the exporter has changed values. Raises as `LiveSession`.
    """
    path, mapping = Path(model), mapping or OnnxMapping()
    exported = _load_model(path)
    schema = schema_of(_spec(tensor) for tensor in exported.graph.initializer)
    sources = mapping.fed(schema)
    with WeightsReader(weights) as reader:
        mapping.check(schema, reader.schema)
        return [
            tensor.name
            for tensor in exported.graph.initializer
            if tensor.name in sources
            and _raw(tensor, path.parent) != _fed(reader, sources[tensor.name]).tobytes()
        ]


def _load_model(path: Path) -> onnx.ModelProto:
    """The model; tensors in files beside it stay there."""
    try:
        return onnx.load(path, load_external_data=False)
    except FileNotFoundError as error:
        raise BadConfig("missing", f"{path}: no such model") from error
    except OSError as error:
        raise BadConfig("invalid", f"{path}: {error.strerror}") from error
    except DecodeError as error:
        raise BadConfig("invalid", f"{path} is no ONNX model") from error


def _spec(tensor: TensorProto) -> TensorSpec:
    """An unknown dtype never equals a tensor's, so it is refused unless it is a constant."""
    known = DTYPES.get(tensor.data_type)
    return TensorSpec(
        tensor.name, known or TensorProto.DataType.Name(tensor.data_type), tuple(tensor.dims)
    )


def _empty(tensor: TensorProto) -> None:
    """Take the values out; what is left says that they lie elsewhere."""
    for field, _ in tensor.ListFields():
        if field.name.endswith("_data"):
            tensor.ClearField(field.name)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=_NOWHERE)


def _fed(reader: WeightsReader, source: Source) -> Array:
    return source.arrange(reader.read(source.tensor))


def _raw(tensor: TensorProto, directory: Path) -> bytes:
    """The values of an initializer as they are stored in a weights file."""
    values = numpy_helper.to_array(tensor, str(directory))
    return values.view(STORAGE[DTYPES[tensor.data_type]]).tobytes()


def _value(elements: Array, dtype: str) -> Any:
    """What ONNX Runtime takes; it copies when the session is built."""
    if dtype in _NOT_IN_NUMPY:
        make = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type
        return make(elements, _ELEMENT_TYPES[dtype])
    return onnxruntime.OrtValue.ortvalue_from_numpy(
        elements.view(np.bool_) if dtype == "BOOL" else elements
    )
