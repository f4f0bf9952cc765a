"""Tensors: dtypes, specs, schema, and the digests that name them.

Arrays are in *storage form*: one numpy dtype per safetensors dtype, little-endian; numpy has no
bfloat16, so a BF16 tensor is handled as the `uint16` of its bits. The order of tensors is
everywhere the UTF-8 byte order of their names.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

#: safetensors dtype -> numpy storage dtype. FP8 is carried as bytes: moved, never added to.
STORAGE: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E5M2": np.dtype("u1"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("u1"),
}

#: The dtypes that a lossy method can change.
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})

#: The one key of a safetensors header that is no tensor.
METADATA = "__metadata__"

MAX_DIMENSIONS = 16
CHUNK_ELEMENTS = 1 << 17
_MAX_ELEMENTS = 1 << 58  # whose bytes still fit into 64 bits


@dataclass(frozen=True)
class TensorSpec:
    """Name, safetensors dtype and shape of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements (1 for a scalar)."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored tensor."""
        return self.size * STORAGE[self.dtype].itemsize

    @property
    def matrix(self) -> tuple[int, int]:
        """`(o, i)`: the tensor as the paper's matrix, shape[0] x the rest (section 4.1)."""
        if not self.shape:
            return 1, 1
        return self.shape[0], math.prod(self.shape[1:])

    @property
    def is_float(self) -> bool:
        """Whether arithmetic on this dtype is defined here."""
        return self.dtype in FLOATS

    def header(self) -> bytes:
        """What the digests say of this tensor, bytes apart (design.md section 2)."""
        name, dtype = self.name.encode(), self.dtype.encode()
        return b"".join(
            (
                struct.pack("<I", len(name)),
                name,
                struct.pack("<B", len(dtype)),
                dtype,
                struct.pack("<B", len(self.shape)),
                struct.pack(f"<{len(self.shape)}Q", *self.shape),
                struct.pack("<Q", self.nbytes),
            )
        )


Schema: TypeAlias = Mapping[str, TensorSpec]


def schema_of(specs: Iterable[TensorSpec]) -> dict[str, TensorSpec]:
    """The specs by name, in the order that everything here follows."""
    return {s.name: s for s in sorted(specs, key=lambda s: s.name.encode())}


def schema_digest(schema: Schema) -> bytes:
    """SHA-256 of the schema: the weights digest's input without the tensors' bytes."""
    digest = hashlib.sha256()
    for spec in schema_of(schema.values()).values():
        digest.update(spec.header())
    return digest.digest()


class WeightsDigest:
    """The weights digest, fed tensor by tensor in order.

    It does not depend on the file's header or metadata: two files with the same tensors have the
    same digest.
    """

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def start(self, spec: TensorSpec) -> None:
        """Begin the next tensor."""
        self._sha.update(spec.header())

    def update(self, chunk: Array) -> None:
        """Add elements of the current tensor, in storage form."""
        self._sha.update(np.ascontiguousarray(chunk).view(np.uint8).data)

    def digest(self) -> bytes:
        """The 32 bytes."""
        return self._sha.digest()


def has_nan(elements: Array, dtype: str) -> bool:
    """Whether any element (storage form, a dtype in FLOATS) is no number."""
    if dtype == "BF16":
        return bool(((elements & 0x7FFF) > 0x7F80).any())
    return bool(np.isnan(elements).any())


def to_float64(elements: Array, dtype: str) -> NDArray[np.float64]:
    """Elements in storage form as float64; exact for every dtype in FLOATS."""
    if dtype == "BF16":
        elements = (elements.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # a buffer may hold signalling NaNs
        return elements.astype(np.float64)


def is_shape(dimensions: Sequence[Any]) -> bool:
    """Whether these are dimensions that an array can have, even where one of them is zero."""
    return (
        len(dimensions) <= MAX_DIMENSIONS
        and all(type(d) is int and d >= 0 for d in dimensions)
        and math.prod(max(d, 1) for d in dimensions) <= _MAX_ELEMENTS
    )
