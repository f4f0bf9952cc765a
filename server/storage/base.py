"""The contract of a blob store.

A blob is an immutable file known by its SHA-256. A store promises:

- `receive()` gives a `Blob` in the making. What is written to it is seen by nobody until `keep()`,
  which makes it durable; leaving the block without `keep()` leaves nothing behind.
- Keeping the same bytes twice is no error and stores them once.
- `local(sha256)` gives a path to the whole blob on this machine, for as long as the block lasts.
- `chunks` reads a part without the rest, in bounded memory.

Raises NoSpace where bytes cannot be written, BlobError `missing` where a blob is not there; a store
behind a network also `unreachable` and `refused`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from server.errors import BlobError

CHUNK_BYTES = 256 * 1024

SHA256 = re.compile(r"[0-9a-f]{64}")


def check_name(sha256: str) -> None:
    """Raise BlobError `missing` for what is no SHA-256 in hex: no blob has such a name."""
    if not SHA256.fullmatch(sha256):
        raise BlobError("missing", f"{sha256[:80]!r} is no SHA-256")


@dataclass(frozen=True)
class Kept:
    """A blob that is in the store: SHA-256 in hex, size in bytes."""

    sha256: str
    size: int


class Incoming(ABC):
    """A blob in the making, on this machine's disk."""

    path: Path
    size: int

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Append `data`."""

    @abstractmethod
    def finish(self) -> Kept:
        """End writing; then `path` can be read and checked. Not in the store yet."""

    @abstractmethod
    def keep(self) -> Kept:
        """Put it into the store, durably."""


class BlobStore(ABC):
    """A place for blobs; see the module's docstring for what it promises."""

    @abstractmethod
    def receive(self, expected: int = 0) -> AbstractContextManager[Incoming]:
        """A new blob, to be written piece by piece; `expected` bytes, as far as is known."""

    @abstractmethod
    def local(self, sha256: str) -> AbstractContextManager[Path]:
        """A path at which the blob can be read on this machine."""

    @abstractmethod
    def size(self, sha256: str) -> int:
        """Bytes of the blob."""

    @abstractmethod
    def chunks(self, sha256: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Bytes `start:stop` of the blob, piece by piece."""

    @abstractmethod
    def delete(self, sha256: str) -> None:
        """Remove the blob; no error where it is not there."""

    @abstractmethod
    def kept_at(self, sha256: str) -> datetime:
        """When the blob was last kept. Raises BlobError `missing`."""

    @abstractmethod
    def kept_before(self, moment: datetime) -> Iterator[str]:
        """SHA-256 of every blob that was last kept before the moment."""

    @abstractmethod
    def sweep(self, before: datetime) -> int:
        """Remove what was left unfinished before the moment; how many. At a server's start."""

    def check(self) -> None:
        """Raise NoSpace or BlobError where blobs cannot be written or asked for; cheap."""
        with self.receive() as incoming:
            incoming.write(b"0")
        try:
            self.size("0" * 64)
        except BlobError as error:
            if error.code != "blob.missing":
                raise

    def put(self, source: Path) -> Kept:
        """Copy the file at `source` into the store."""
        with self.receive() as incoming, source.open("rb") as file:
            while data := file.read(CHUNK_BYTES):
                incoming.write(data)
            return incoming.keep()
