"""Whole blobs of a far store on this machine, at most so many bytes of them.

A file is the blob that its name says: it is hashed while it comes, synced, and renamed. Readers get
a link of their own, so that whoever makes room, in this process or another one on the same folder,
takes the bytes away from nobody.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from server.storage.base import check_name
from server.storage.spool import Spool, disk_errors


class Cache:
    """Files under `folder`, of `limit` bytes together; a limit of 0 keeps nothing."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.limit = limit
        self._kept = folder / "kept"
        self.spool = Spool(folder / "tmp")
        with disk_errors():
            self._kept.mkdir(exist_ok=True)

    @contextmanager
    def link(self, sha256: str) -> Iterator[Path | None]:
        """A path to the blob that lasts as long as the block; None where it is not here."""
        check_name(sha256)
        own = self.spool.folder / secrets.token_hex(16)
        try:
            yield own if self._linked(sha256, own) else None
        finally:
            own.unlink(missing_ok=True)

    def _linked(self, sha256: str, own: Path) -> bool:
        with disk_errors(), suppress(FileNotFoundError):
            if self.limit:
                os.link(self._kept / sha256, own)
                os.utime(own)  # used just now: the last one to be dropped
                return True
        return False

    def size(self, sha256: str) -> int | None:
        """Bytes of the blob, None where it is not here."""
        check_name(sha256)
        with suppress(FileNotFoundError):
            return (self._kept / sha256).stat().st_size if self.limit else None
        return None

    def add(self, path: Path, sha256: str) -> None:
        """Link a finished file of the spool into the cache, and drop what was not used longest."""
        if path.stat().st_size > self.limit:
            return
        with disk_errors(), suppress(FileExistsError):
            os.link(path, self._kept / sha256)
        self._shrink()

    def drop(self, sha256: str) -> None:
        """Forget a blob."""
        check_name(sha256)
        (self._kept / sha256).unlink(missing_ok=True)

    def _shrink(self) -> None:
        found = []
        for path in self._kept.iterdir():
            with suppress(FileNotFoundError):
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit:
                return
            path.unlink(missing_ok=True)
            total -= size
