"""Coders: integers and bytes in, few bytes out; read back in order, piece by piece.

A package names its coder and the coder's version, so a better one lives beside an older one: it is
a class here and one line in `CODERS`. A decoder reads exactly as many symbols as its caller asks
for, whatever the data claim, and its memory is bounded by the window.
"""

from __future__ import annotations

import math
import os
from typing import Any, BinaryIO, Protocol

import numpy as np
import zstandard
from numpy.typing import NDArray

from shared import gap_coding
from shared.errors import BadPackage
from shared.range_coder import Encoder
from shared.tensors import STORAGE, Array, TensorSpec

#: Decompression holds at most this much; streams that ask for more are refused.
WINDOW_LOG = 21
_READ_BYTES = 1 << 16
_FRAME_HEADER_MAX = 18
_REPEATED_BYTE = 1
_SYMBOL_LEVEL = 19
_BYTES_LEVEL = 9
MAX_RANGE_BYTES = 1 << 20
#: Stands for no bytes at all, where there must be some.
_NOTHING = b"\0"


class SymbolSource(Protocol):
    """Decoded symbols, in the order in which they were coded."""

    def start(self) -> None:
        """Begin the next of the arrays that were coded."""

    def read(self, count: int) -> NDArray[np.int64]:
        """The next `count` symbols of the array; raises BadPackage where there are fewer."""

    def finish(self) -> None:
        """Raise BadPackage where symbols are left."""


class Coder(Protocol):
    """One way of coding symbols."""

    id: str
    #: Most symbols other than zero that a device decodes in reasonable time.
    most: float

    def encode(self, symbols: list[NDArray[np.int64]]) -> bytes:
        """Code the arrays one after the other."""

    def source(self, file: BinaryIO) -> SymbolSource:
        """Read them back from a file that ends where the coded symbols end."""


class ByteSource:
    """One zstd frame read in order: it fills the file, and ends exactly where its reader does."""

    def __init__(self, file: BinaryIO) -> None:
        _check_frame(file)
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG)
        self._stream = decompressor.stream_reader(file, read_size=_READ_BYTES)

    def read(self, size: int) -> bytearray:
        """Exactly `size` bytes; raises BadPackage where there are fewer."""
        out = bytearray()
        while len(out) < size:
            piece = self._read(min(size - len(out), _READ_BYTES))
            if not piece:
                raise BadPackage("malformed", "coded data end too early")
            out += piece
        return out

    def finish(self) -> None:
        """Raise BadPackage where bytes are left."""
        if self._read(1):
            raise BadPackage("malformed", "coded data go on after their end")

    def _read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except zstandard.ZstdError as error:
            raise BadPackage("malformed", f"coded data are damaged ({error})") from error


def _check_frame(file: BinaryIO) -> None:
    """Raise BadPackage unless the rest of `file` is one zstd frame, by its headers.

    See RFC 8878, section 3.1.1. The library reads ahead and does not say where a frame ended: what
    follows it would go unseen.
    """
    start = file.tell()
    head = file.read(_FRAME_HEADER_MAX)
    try:
        at = start + zstandard.frame_header_size(head)
        has_checksum = zstandard.get_frame_parameters(head).has_checksum
    except zstandard.ZstdError as error:
        raise BadPackage("malformed", "coded data do not begin as they should") from error
    last = head[:4] != zstandard.FRAME_HEADER  # skippable: no frame at all
    while not last:
        file.seek(at)
        block = int.from_bytes(file.read(3), "little")
        last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
        at += 3 + (1 if kind == _REPEATED_BYTE else size)
        if at > file.seek(0, os.SEEK_END):
            raise BadPackage("malformed", "coded data end too early")
    if at + (4 if has_checksum else 0) != file.seek(0, os.SEEK_END):
        raise BadPackage("malformed", "coded data do not end where they should")
    file.seek(start)


class ByteSink:
    """What a ByteSource reads: a zstd stream written piece by piece to a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._stream = _compressor(_BYTES_LEVEL).stream_writer(file, closefd=False)

    def write(self, data: bytes) -> None:
        """Append."""
        self._stream.write(data)

    def close(self) -> None:
        """End the stream; the file stays open."""
        self._stream.close()  # type: ignore[no-untyped-call]


class ZstdSymbols:
    """Little-endian integers of 1, 2 or 4 bytes, whichever the largest symbol needs, under zstd."""

    id = "zstd/1"
    most = math.inf

    def encode(self, symbols: list[NDArray[np.int64]]) -> bytes:
        """See Coder."""
        largest = max((int(np.abs(s).max(initial=0)) for s in symbols), default=0)
        width = 1 if largest < 1 << 7 else 2 if largest < 1 << 15 else 4
        data = b"".join(s.astype(f"<i{width}").tobytes() for s in symbols)
        return bytes([width]) + _compressor(_SYMBOL_LEVEL).compress(data)

    def source(self, file: BinaryIO) -> SymbolSource:
        """See Coder."""
        return _ZstdSymbolSource(file)


class _ZstdSymbolSource:
    def __init__(self, file: BinaryIO) -> None:
        width = file.read(1)
        if width not in (b"\1", b"\2", b"\4"):
            raise BadPackage("malformed", "symbols have an unknown width")
        self._dtype = np.dtype(f"<i{width[0]}")
        self._bytes = ByteSource(file)

    def start(self) -> None:
        pass  # arrays follow one another without a seam

    def read(self, count: int) -> NDArray[np.int64]:
        data = self._bytes.read(count * self._dtype.itemsize)
        return np.frombuffer(data, self._dtype).astype(np.int64)

    def finish(self) -> None:
        self._bytes.finish()


class RangeSymbols:
    """Gaps, signs and magnitudes under an adaptive range coder; see `shared.gap_coding`."""

    id = "range/1"
    most: float = 1 << 17

    def encode(self, symbols: list[NDArray[np.int64]]) -> bytes:
        """See Coder."""
        encoder = Encoder()
        for array in symbols:
            gap_coding.encode(encoder, array)
        return encoder.finish() or _NOTHING

    def source(self, file: BinaryIO) -> SymbolSource:
        """See Coder."""
        data = file.read(MAX_RANGE_BYTES + 1)
        if len(data) > MAX_RANGE_BYTES:
            raise BadPackage("too_large", f"more than {MAX_RANGE_BYTES} bytes of coded symbols")
        return gap_coding.ArrayDecoder(b"" if data == _NOTHING else data)


CODERS: dict[str, Coder] = {coder.id: coder for coder in (ZstdSymbols(), RangeSymbols())}
DEFAULT_CODER = ZstdSymbols.id


def smallest(symbols: list[NDArray[np.int64]]) -> str:
    """The id of the coder that makes the least of these, and is fast enough."""
    others = sum(np.count_nonzero(array) for array in symbols)
    fast = [coder for coder in CODERS.values() if others <= coder.most]
    return min(fast, key=lambda coder: len(coder.encode(symbols))).id


def coder(id_: str) -> Coder:
    """The coder of that id and version; raises BadPackage."""
    if id_ not in CODERS:
        raise BadPackage("unknown_coder", f"coder {id_!r} is not known here")
    return CODERS[id_]


def shuffle(elements: Array) -> bytes:
    """A chunk of a tensor as byte planes: first bytes first; floats then compress better."""
    flat = np.ascontiguousarray(elements).reshape(-1)
    return flat.view(np.uint8).reshape(flat.size, -1).T.tobytes() if flat.size else b""


def unshuffle(data: bytes | bytearray, spec: TensorSpec) -> Array:
    """The flat chunk that `shuffle` made into `data`."""
    dtype: np.dtype[Any] = STORAGE[spec.dtype]
    planes = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, -1)
    return np.ascontiguousarray(planes.T).view(dtype).reshape(-1)


def xor(left: Array, right: Array) -> Array:
    """Bitwise difference of two chunks of the same dtype and size; its own inverse."""
    bits = np.ascontiguousarray(left).view(np.uint8) ^ np.ascontiguousarray(right).view(np.uint8)
    return bits.view(left.dtype)


def _compressor(level: int) -> zstandard.ZstdCompressor:
    parameters = zstandard.ZstdCompressionParameters.from_level(level, window_log=WINDOW_LOG)
    return zstandard.ZstdCompressor(compression_params=parameters)
