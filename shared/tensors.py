"""Weights on disk: schema, digest, and safetensors files read and written tensor by tensor.

A weights file may be larger than the memory of the machine, so nothing here holds more than one
tensor (or one chunk of one). Arrays are in *storage form*: one numpy dtype per safetensors dtype,
little-endian; numpy has no bfloat16, so a BF16 tensor is handled as the `uint16` of its bits.

The order of tensors is everywhere the UTF-8 byte order of their names.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shared.errors import BadWeights

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

MAX_HEADER_BYTES = 16 * 1024 * 1024
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


class WeightsReader:
    """A safetensors file, read by `pread`: mapped pages would count as the agent's memory.

    Raises BadWeights where the file is not a well-formed safetensors file: offsets must cover the
    data exactly, without holes or overlaps.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._fd = open_regular(self.path)
        except FileNotFoundError as error:
            raise BadWeights("not_found", f"{self.path}: no such file") from error
        except OSError as error:
            raise BadWeights("malformed", f"{self.path}: {error.strerror}") from error
        try:
            header, self._start = _read_header(self._fd, self.path)
            self.metadata = _take_metadata(header, self.path)
            self._offsets = _check_layout(header, self._data_bytes(), self.path)
        except BaseException:
            os.close(self._fd)
            raise
        self.schema: dict[str, TensorSpec] = schema_of(
            TensorSpec(name, entry["dtype"], tuple(entry["shape"]))
            for name, entry in header.items()
        )

    def _data_bytes(self) -> int:
        return os.fstat(self._fd).st_size - self._start

    def __enter__(self) -> WeightsReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Elements `start:stop` of the flattened tensor, in storage form; all by default, shaped.

        Raises BadWeights where the file became shorter since it was opened.
        """
        spec = self.schema[name]
        dtype = STORAGE[spec.dtype]
        last = spec.size if stop is None else stop
        out = np.empty(last - start, dtype)
        view = memoryview(out.view(np.uint8).data) if out.size else memoryview(b"")
        offset = self._start + self._offsets[name] + start * dtype.itemsize
        while len(view):
            got = os.preadv(self._fd, [view], offset)
            if got == 0:
                raise BadWeights("malformed", f"{self.path}: cut inside tensor {name!r}")
            view, offset = view[got:], offset + got
        return out.reshape(spec.shape) if (start, last) == (0, spec.size) else out

    def chunks(self, name: str, elements: int = CHUNK_ELEMENTS) -> Iterator[Array]:
        """The flattened tensor in pieces of at most `elements`."""
        size = self.schema[name].size
        for start in range(0, size, elements):
            yield self.read(name, start, min(start + elements, size)).reshape(-1)

    def digest(self) -> bytes:
        """The weights digest of the file."""
        digest = WeightsDigest()
        for name, spec in self.schema.items():
            digest.start(spec)
            for chunk in self.chunks(name):
                digest.update(chunk)
        return digest.digest()

    def tensor_digests(self) -> dict[str, bytes]:
        """4 bytes a tensor, by which the server finds the one that went wrong."""
        return {name: self.tensor_digest(name) for name in self.schema}

    def tensor_digest(self, name: str) -> bytes:
        """The first 4 bytes of the SHA-256 of one tensor's bytes."""
        sha = hashlib.sha256()
        for chunk in self.chunks(name):
            sha.update(chunk.view(np.uint8).data)
        return sha.digest()[:4]


class WeightsWriter:
    """Writes a safetensors file tensor by tensor, in any order, with the digest on the way.

    The data are laid out by descending item size, then by name, so that every tensor is aligned
    (readers that map the file need it). The same tensors give the same bytes. The caller opens the
    file, and makes it durable.
    """

    def __init__(
        self, file: BinaryIO, schema: Schema, metadata: Mapping[str, str] | None = None
    ) -> None:
        self._file = file
        self.schema = schema_of(schema.values())
        layout = sorted(
            self.schema.values(), key=lambda s: (-STORAGE[s.dtype].itemsize, s.name.encode())
        )
        header: dict[str, Any] = {METADATA: dict(sorted(metadata.items()))} if metadata else {}
        self._cursor: dict[str, int] = {}
        offset = 0
        for spec in layout:
            self._cursor[spec.name] = offset
            header[spec.name] = {
                "dtype": spec.dtype,
                "shape": list(spec.shape),
                "data_offsets": [offset, offset + spec.nbytes],
            }
            offset += spec.nbytes
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self._start = 8 + len(text)
        self._file.write(struct.pack("<Q", len(text)) + text)
        self._file.truncate(self._start + offset)

    def write(self, name: str, elements: Array) -> None:
        """Append `elements` (storage form, any shape) to the tensor `name`."""
        data = np.ascontiguousarray(elements).reshape(-1).view(np.uint8)
        self._file.seek(self._start + self._cursor[name])
        self._file.write(data.data)
        self._cursor[name] += data.size


def write_weights(
    path: str | os.PathLike[str],
    tensors: Mapping[str, tuple[str, Array]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write whole tensors, given as name -> (safetensors dtype, array in storage form)."""
    specs = schema_of(
        TensorSpec(name, dtype, tuple(array.shape)) for name, (dtype, array) in tensors.items()
    )
    with Path(path).open("wb") as file:
        writer = WeightsWriter(file, specs, metadata)
        for name, spec in specs.items():
            writer.write(name, tensors[name][1].astype(STORAGE[spec.dtype], copy=False))


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


def open_regular(path: Path) -> int:
    """A descriptor to read a file by; raises OSError, also where it is a directory or a pipe."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer would block
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def is_shape(dimensions: Sequence[Any]) -> bool:
    """Whether these are dimensions that an array can have, even where one of them is zero."""
    return (
        len(dimensions) <= MAX_DIMENSIONS
        and all(type(d) is int and d >= 0 for d in dimensions)
        and math.prod(max(d, 1) for d in dimensions) <= _MAX_ELEMENTS
    )


def _read_header(fd: int, path: Path) -> tuple[dict[str, Any], int]:
    """The parsed JSON header, and where the data start."""
    prefix = os.pread(fd, 8, 0)
    if len(prefix) < 8:
        raise BadWeights("malformed", f"{path}: too short for a safetensors file")
    (length,) = struct.unpack("<Q", prefix)
    if length > min(MAX_HEADER_BYTES, os.fstat(fd).st_size - 8):
        raise BadWeights("malformed", f"{path}: not a safetensors file, or cut off")
    try:
        header = json.loads(os.pread(fd, length, 8).decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadWeights("malformed", f"{path}: header is not JSON") from error
    if not isinstance(header, dict):
        raise BadWeights("malformed", f"{path}: header is not a JSON object")
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; readers differ in which of two equal names they take, so there is but one."""
    for name, _ in pairs:
        name.encode()  # fails where an escape made a name that is not Unicode
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name stands twice")
    return entries


def _take_metadata(header: dict[str, Any], path: Path) -> dict[str, str]:
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise BadWeights("malformed", f"{path}: the metadata are not texts by name")
    return metadata


def _check_layout(header: dict[str, Any], data_bytes: int, path: Path) -> dict[str, int]:
    """The offset of each tensor, once the header is known to describe the data exactly."""
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        except (TypeError, KeyError, ValueError) as error:
            raise BadWeights("malformed", f"{path}: entry {name!r} is incomplete") from error
        if not isinstance(dtype, str) or dtype not in STORAGE:
            raise BadWeights("malformed", f"{path}: {name!r} has the unknown dtype {dtype!r}")
        offsets_fit = all(type(n) is int and n >= 0 for n in (begin, end))
        if not (isinstance(shape, list) and is_shape(shape) and offsets_fit):
            raise BadWeights("malformed", f"{path}: {name!r} has an impossible shape or offset")
        if end - begin != TensorSpec(name, dtype, tuple(shape)).nbytes:
            raise BadWeights("malformed", f"{path}: {name!r} has offsets that miss its shape")
        spans.append((begin, end, name))
    expected = 0
    for begin, end, name in sorted(spans):
        if begin != expected:
            raise BadWeights("malformed", f"{path}: data before {name!r} overlap or have a hole")
        expected = end
    if expected != data_bytes:
        raise BadWeights("malformed", f"{path}: {data_bytes} bytes of data, header says {expected}")
    return {name: begin for begin, _, name in spans}
