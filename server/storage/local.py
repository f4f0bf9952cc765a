"""Blobs as files in a folder: `<root>/<first two digits>/<sha256>`, unfinished ones in `tmp/`.

Bytes are written beside the target, synced, renamed, and the folder synced (see `keep`), so that a
name in the store always stands for the whole blob, whatever happens to the power.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from server.errors import BlobError
from server.storage.base import CHUNK_BYTES, SHA256, BlobStore, Incoming, Kept, check_name
from server.storage.spool import Spool, SpoolFile, disk_errors


class LocalStore(BlobStore):
    """Blobs under `root`, which is made where it does not exist."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._spool = Spool(root / "tmp")

    @property
    def unfinished(self) -> Path:
        """Where blobs in the making lie."""
        return self._spool.folder

    def sweep(self, before: datetime) -> int:
        """Remove unfinished files that nobody has written to since."""
        return self._spool.sweep(before)

    @contextmanager
    def receive(self, expected: int = 0) -> Iterator[Incoming]:
        """A new blob in `tmp/`; its file is gone at the end unless it was kept."""
        self._spool.check_room(expected)
        incoming = LocalIncoming(self, self._spool)
        try:
            yield incoming
        finally:
            incoming.close()

    @contextmanager
    def local(self, sha256: str) -> Iterator[Path]:
        """The file itself."""
        self.size(sha256)
        yield self.place(sha256)

    def size(self, sha256: str) -> int:
        """Bytes of the file."""
        return self._stat(sha256).st_size

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

    def kept_at(self, sha256: str) -> datetime:
        """The time of the file."""
        return datetime.fromtimestamp(self._stat(sha256).st_mtime, UTC)

    def kept_before(self, moment: datetime) -> Iterator[str]:
        """By the time of the file, which is new each time that the blob is kept."""
        for path in self.root.glob("[0-9a-f][0-9a-f]/*"):
            if SHA256.fullmatch(path.name) and path.stat().st_mtime < moment.timestamp():
                yield path.name

    def _stat(self, sha256: str) -> os.stat_result:
        try:
            return self.place(sha256).stat()
        except FileNotFoundError as error:
            raise BlobError("missing", f"the blob {sha256} is not in the store") from error

    def place(self, sha256: str) -> Path:
        """Where the blob lies, or would. Raises BlobError for what is no SHA-256 in hex."""
        check_name(sha256)
        return self.root / sha256[:2] / sha256


class LocalIncoming(SpoolFile, Incoming):
    """A file of the spool that is renamed to its place."""

    def __init__(self, store: LocalStore, spool: Spool) -> None:
        super().__init__(spool)
        self._store = store

    def keep(self) -> Kept:
        """Rename into the store, and sync the folders that name it."""
        kept = self.finish()
        place = self._store.place(kept.sha256)
        with disk_errors():
            made = not place.parent.is_dir()
            place.parent.mkdir(exist_ok=True)
            self.path.replace(place)
            _sync_folder(place.parent)
            if made:
                _sync_folder(self._store.root)
        return kept


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
