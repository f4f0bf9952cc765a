"""Weights files: safetensors, read and written tensor by tensor.

A weights file may be larger than the memory of the machine, so nothing here holds more than one
tensor, or one chunk of one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from shared.errors import BadWeights
from shared.tensors import (
    CHUNK_ELEMENTS,
    METADATA,
    STORAGE,
    Array,
    Schema,
    TensorSpec,
    WeightsDigest,
    is_shape,
    schema_of,
)

MAX_HEADER_BYTES = 16 * 1024 * 1024
#: Tensors of one file: what a header of so many bytes could hold otherwise takes 20 times its size.
MAX_TENSORS = 1 << 16


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
            header, self.data_start = _read_header(self._fd, self.path)
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
        return os.fstat(self._fd).st_size - self.data_start

    def __enter__(self) -> WeightsReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def fileno(self) -> int:
        """The descriptor that is read by, for a program that maps the file."""
        return self._fd

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Elements `start:stop` of the flattened tensor, in storage form; all by default, shaped.

        Raises BadWeights where the file became shorter since it was opened.
        """
        spec = self.schema[name]
        dtype = STORAGE[spec.dtype]
        last = spec.size if stop is None else stop
        out = np.empty(last - start, dtype)
        view = memoryview(out.view(np.uint8).data) if out.size else memoryview(b"")
        offset = self.place(name) + start * dtype.itemsize
        while len(view):
            got = os.preadv(self._fd, [view], offset)
            if got == 0:
                raise BadWeights("malformed", f"{self.path}: cut inside tensor {name!r}")
            view, offset = view[got:], offset + got
        return out.reshape(spec.shape) if (start, last) == (0, spec.size) else out

    def place(self, name: str) -> int:
        """The offset in the file at which the bytes of a tensor begin."""
        return self.data_start + self._offsets[name]

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
        """See `tensor_digest`."""
        return tensor_digest(self.chunks(name))


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


def tensor_digest(chunks: Iterable[Array]) -> bytes:
    """The first 4 bytes of the SHA-256 of one tensor's bytes, given in flat pieces."""
    sha = hashlib.sha256()
    for chunk in chunks:
        sha.update(np.ascontiguousarray(chunk).view(np.uint8).data)
    return sha.digest()[:4]


def open_regular(path: Path) -> int:
    """A descriptor to read a file by; raises OSError, also where it is a directory or a pipe."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer would block
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def _read_header(fd: int, path: Path) -> tuple[dict[str, Any], int]:
    """The parsed JSON header, and where the data start."""
    prefix = os.pread(fd, 8, 0)
    if len(prefix) < 8:
        raise BadWeights("malformed", f"{path}: too short for a safetensors file")
    (length,) = struct.unpack("<Q", prefix)
    if length > min(MAX_HEADER_BYTES, os.fstat(fd).st_size - 8):
        raise BadWeights("malformed", f"{path}: not a safetensors file, or cut off")
    text = os.pread(fd, length, 8)
    if text.count(b"{") + text.count(b"[") > 3 * MAX_TENSORS:  # a tensor takes one and two of them
        raise BadWeights("malformed", f"{path}: more than {MAX_TENSORS} tensors")
    try:
        header = json.loads(text.decode(), object_pairs_hook=_unique)
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
