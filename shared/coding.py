"""Coders: integers and bytes in, few bytes out; read back in order, piece by piece.

A package names its coder and the coder's version, so a better one lives beside an older one: it is
a class here and one line in `CODERS`. A decoder reads exactly as many symbols as its caller asks
for, whatever the data claim, and its memory is bounded by the window.
"""

from __future__ import annotations

import math
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from shared import dense_coding, gap_coding, neighbour_coding
from shared.errors import BadPackage
from shared.range_coder import Decoder, Encoder
from shared.tensors import STORAGE, Array, TensorSpec
from shared.zstd_frames import ByteSink, ByteSource, compressor

__all__ = [
    "CODERS",
    "DEFAULT_CODER",
    "ByteSink",
    "ByteSource",
    "Coder",
    "SymbolSource",
    "coder",
    "shuffle",
    "smallest",
    "unshuffle",
    "xor",
]

_SYMBOL_LEVEL = 19
MAX_RANGE_BYTES = 1 << 20
#: Stands for no bytes at all, where there must be some.
_NOTHING = b"\0"
_LENGTH = 4


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


class ZstdSymbols:
    """Little-endian integers of 1, 2 or 4 bytes, whichever the largest symbol needs, under zstd."""

    id = "zstd/1"
    most = math.inf

    def encode(self, symbols: list[NDArray[np.int64]]) -> bytes:
        """See Coder."""
        largest = max((int(np.abs(s).max(initial=0)) for s in symbols), default=0)
        width = 1 if largest < 1 << 7 else 2 if largest < 1 << 15 else 4
        data = b"".join(s.astype(f"<i{width}").tobytes() for s in symbols)
        return bytes([width]) + compressor(_SYMBOL_LEVEL).compress(data)

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
        return gap_coding.ArrayDecoder(_range_coded(file))


def _range_coded(file: BinaryIO) -> bytes:
    """All that a range coder gave; raises BadPackage where it is too much."""
    data = file.read(MAX_RANGE_BYTES + 1)
    if len(data) > MAX_RANGE_BYTES:
        raise BadPackage("too_large", f"more than {MAX_RANGE_BYTES} bytes of coded symbols")
    return b"" if data == _NOTHING else data


class NeighbourSymbols(RangeSymbols):
    """The same with signs that adapt, and a look at the symbol before."""

    id = "range/2"

    def encode(self, symbols: list[NDArray[np.int64]]) -> bytes:
        """See Coder."""
        encoder = Encoder()
        arrays = neighbour_coding.ArrayEncoder(encoder)
        for array in symbols:
            arrays.encode(array)
        return encoder.finish() or _NOTHING

    def source(self, file: BinaryIO) -> SymbolSource:
        """See Coder."""
        return neighbour_coding.ArrayDecoder(Decoder(_range_coded(file)))


class DenseSymbols:
    """Dense arrays in lanes, many symbols at a time, the others as `range/2` codes them."""

    id = "dense/1"
    most = math.inf

    def encode(self, symbols: list[NDArray[np.int64]]) -> bytes:
        """See Coder."""
        singles, lanes = dense_coding.encode(symbols)
        return len(singles).to_bytes(_LENGTH, "little") + singles + lanes

    def source(self, file: BinaryIO) -> SymbolSource:
        """See Coder."""
        size = int.from_bytes(file.read(_LENGTH), "little")
        if size > MAX_RANGE_BYTES:
            raise BadPackage("too_large", f"more than {MAX_RANGE_BYTES} bytes of coded symbols")
        singles = file.read(size)
        if len(singles) < size:
            raise BadPackage("malformed", "coded data end too early")
        return dense_coding.ArrayDecoder(singles, file)


CODERS: dict[str, Coder] = {
    coder.id: coder for coder in (ZstdSymbols(), RangeSymbols(), NeighbourSymbols(), DenseSymbols())
}
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
