"""Files in the making: a folder for bytes that may yet be broken off, hashed while written.

Every store takes blobs in by it; only what happens at `keep()` differs.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from server.storage.base import Kept
from shared.errors import NoSpace

#: What an upload leaves free for the database and the rest of the machine.
RESERVE_BYTES = 32 * 1024**2


class Spool:
    """The folder, which is made where it does not exist. Raises NoSpace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with disk_errors():
            folder.mkdir(parents=True, exist_ok=True)

    def sweep(self, before: datetime) -> int:
        """Remove files that nobody has written to since the moment `before`; how many."""
        removed = 0
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # its owner was faster
                if path.stat().st_mtime <= before.timestamp():
                    path.unlink()
                    removed += 1
        return removed

    def check_room(self, expected: int) -> None:
        """Raise NoSpace `no_space` where `expected` bytes would not leave the reserve free."""
        with disk_errors():
            free = shutil.disk_usage(self.folder).free
        if expected + RESERVE_BYTES > free:
            raise NoSpace("no_space", f"the blob store has {free} bytes, {expected} are needed")

    def name(self) -> tuple[int, Path]:
        """A new file of the owner's alone: its descriptor and path."""
        with disk_errors():
            descriptor, name = tempfile.mkstemp(dir=self.folder)
        return descriptor, Path(name)


class SpoolFile:
    """A file of the spool, hashed while it is written."""

    def __init__(self, spool: Spool) -> None:
        self.size = 0
        self._sha, self._spool = hashlib.sha256(), spool
        descriptor, self.path = spool.name()
        self._file = os.fdopen(descriptor, "wb")

    def write(self, data: bytes) -> None:
        """Append `data`. Raises NoSpace, also where others have taken the room meanwhile."""
        self._spool.check_room(len(data))
        with disk_errors():
            self._file.write(data)
        self._sha.update(data)
        self.size += len(data)

    def finish(self) -> Kept:
        """Write out and sync what is buffered."""
        if not self._file.closed:
            with disk_errors():
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
        return Kept(self._sha.hexdigest(), self.size)

    def close(self) -> None:
        """Close and remove the file, unless it has been moved to its place.

        Buffered bytes that find no space are of no interest any more.
        """
        with suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)


@contextmanager
def disk_errors() -> Iterator[None]:
    """What a disk refuses becomes NoSpace."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        code = "no_space" if full else "unusable"
        raise NoSpace(code, f"the blob store: {error.strerror}") from error
