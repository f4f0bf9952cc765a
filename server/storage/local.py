"""Blobs as files in a folder: `<root>/<first two digits>/<sha256>`, unfinished ones in `tmp/`.

Bytes are written beside the target, synced, renamed, and the folder synced (see `keep`), so that a
name in the store always stands for the whole blob, whatever happens to the power.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from server.errors import BlobError
from server.storage.base import CHUNK_BYTES, BlobStore, Incoming, Kept
from shared.errors import NoSpace

#: What an upload leaves free for the database and the rest of the machine.
RESERVE_BYTES = 32 * 1024**2

SHA256 = re.compile(r"[0-9a-f]{64}")


class LocalStore(BlobStore):
    """Blobs under `root`, which is made where it does not exist."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.unfinished = root / "tmp"
        with _disk_errors():
            self.unfinished.mkdir(parents=True, exist_ok=True)

    def sweep(self) -> int:
        """Remove what earlier processes left unfinished; only while none other runs."""
        left = list(self.unfinished.iterdir())
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    @contextmanager
    def receive(self, expected: int = 0) -> Iterator[Incoming]:
        """A new blob in `tmp/`; its file is gone at the end unless it was kept."""
        with _disk_errors():
            free = shutil.disk_usage(self.unfinished).free
            if expected + RESERVE_BYTES > free:
                raise NoSpace("no_space", f"the blob store has {free} bytes, {expected} are needed")
            descriptor, name = tempfile.mkstemp(dir=self.unfinished)
        incoming = LocalIncoming(self, descriptor, Path(name))
        try:
            yield incoming
        finally:
            incoming.close()
            incoming.path.unlink(missing_ok=True)

    @contextmanager
    def local(self, sha256: str) -> Iterator[Path]:
        """The file itself."""
        self.size(sha256)
        yield self.place(sha256)

    def size(self, sha256: str) -> int:
        """Bytes of the file."""
        try:
            return self.place(sha256).stat().st_size
        except FileNotFoundError as error:
            raise BlobError("missing", f"the blob {sha256} is not in the store") from error

    def chunks(self, sha256: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Pieces of the file, from `start` to `stop`."""
        left = (self.size(sha256) if stop is None else stop) - start
        with self.place(sha256).open("rb") as file:
            file.seek(start)
            while left > 0:
                data = file.read(min(CHUNK_BYTES, left))
                if not data:
                    raise BlobError("damaged", f"the blob {sha256} ends {left} bytes early")
                left -= len(data)
                yield data

    def delete(self, sha256: str) -> None:
        """Remove the file."""
        self.place(sha256).unlink(missing_ok=True)

    def kept_before(self, moment: datetime) -> Iterator[str]:
        """By the time of the file, which is new each time that the blob is kept."""
        for path in self.root.glob("[0-9a-f][0-9a-f]/*"):
            if SHA256.fullmatch(path.name) and path.stat().st_mtime < moment.timestamp():
                yield path.name

    def place(self, sha256: str) -> Path:
        """Where the blob lies, or would. Raises BlobError for what is no SHA-256 in hex."""
        if not SHA256.fullmatch(sha256):
            raise BlobError("missing", f"{sha256[:80]!r} is no SHA-256")
        return self.root / sha256[:2] / sha256


class LocalIncoming(Incoming):
    """A temporary file, hashed while it is written."""

    def __init__(self, store: LocalStore, descriptor: int, path: Path) -> None:
        self.path = path
        self.size = 0
        self._store = store
        self._sha = hashlib.sha256()
        self._file = os.fdopen(descriptor, "wb")

    def write(self, data: bytes) -> None:
        """Append `data`."""
        with _disk_errors():
            self._file.write(data)
        self._sha.update(data)
        self.size += len(data)

    def finish(self) -> Kept:
        """Write out and sync what is buffered."""
        if not self._file.closed:
            with _disk_errors():
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
        return Kept(self._sha.hexdigest(), self.size)

    def keep(self) -> Kept:
        """Rename into the store, and sync the folders that name it."""
        kept = self.finish()
        place = self._store.place(kept.sha256)
        with _disk_errors():
            made = not place.parent.is_dir()
            place.parent.mkdir(exist_ok=True)
            self.path.replace(place)
            _sync_folder(place.parent)
            if made:
                _sync_folder(self._store.root)
        return kept

    def close(self) -> None:
        """Close the file; buffered bytes that find no space are of no interest any more."""
        with suppress(OSError):
            self._file.close()


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        code = "no_space" if full else "unusable"
        raise NoSpace(code, f"the blob store: {error.strerror}") from error
