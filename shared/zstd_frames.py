"""Bytes under zstd: one frame, read in order and in bounded memory, and nothing beside it."""

from __future__ import annotations

import os
from typing import BinaryIO

import zstandard

from shared.errors import BadPackage

#: Decompression holds at most this much; streams that ask for more are refused.
WINDOW_LOG = 21
_READ_BYTES = 1 << 16
_FRAME_HEADER_MAX = 18
_REPEATED_BYTE = 1
_BYTES_LEVEL = 9


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
        self._stream = compressor(_BYTES_LEVEL).stream_writer(file, closefd=False)

    def write(self, data: bytes) -> None:
        """Append."""
        self._stream.write(data)

    def close(self) -> None:
        """End the stream; the file stays open."""
        self._stream.close()  # type: ignore[no-untyped-call]


def compressor(level: int) -> zstandard.ZstdCompressor:
    """Makes frames that a ByteSource reads."""
    parameters = zstandard.ZstdCompressionParameters.from_level(level, window_log=WINDOW_LOG)
    return zstandard.ZstdCompressor(compression_params=parameters)
