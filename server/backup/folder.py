"""A backup's folder, and what is written in it.

    backup.json               written last, by a rename: without it there is no finished backup
    tables-<time>/<t>.jsonl   one row a line, in the order of their ids
    blobs/                    a local blob store: what the rows name
    lock                      one process at a time

A second backup into the same folder copies only new blobs. Until its `backup.json` is in place the
first one stays whole; then what only the first one named is removed. Keys that sign metadata are in
no backup: whoever got hold of one could sign what devices install.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.errors import BadBackup
from server.storage.local import LocalStore
from shared.errors import NoSpace

FORMAT = 1
NAME = "backup.json"


class TableFile(BaseModel):
    """One table's file."""

    model_config = ConfigDict(frozen=True)

    rows: int
    sha256: str


class Manifest(BaseModel):
    """The content of `backup.json`."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    schema_revision: str
    tool_version: str
    taken_at: datetime
    epoch: str = Field(description="Of the database that it was taken from.")
    folder: str = Field(pattern=r"^tables-[0-9TZ]+$", description="Where the tables lie.")
    tables: dict[str, TableFile]
    blobs: int
    blob_bytes: int


class BackupFolder:
    """The folder at `root`. Raises BadBackup and NoSpace."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if need be, and work in it alone. Raises BadBackup `busy`."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds secrets
            descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise NoSpace("unusable", f"{self.root}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BadBackup("busy", f"another process works in {self.root}") from error
            yield
        finally:
            os.close(descriptor)

    @property
    def blobs(self) -> LocalStore:
        """The blobs of the backup."""
        return LocalStore(self.root / "blobs")

    def table(self, folder: str, name: str) -> Path:
        """The file of a table."""
        return self.root / folder / f"{name}.jsonl"

    def load(self) -> Manifest:
        """What `backup.json` says. Raises BadBackup `not_found`, `unknown_format`, `damaged`."""
        path = self.root / NAME
        try:
            manifest = Manifest.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            begun = any(self.root.glob("tables-*"))
            found = "only an interrupted backup" if begun else "no backup"
            raise BadBackup("not_found", f"{self.root}: {found}") from error
        except OSError as error:
            raise NoSpace("unusable", f"{path}: {error.strerror}") from error
        except ValidationError as error:
            raise BadBackup("damaged", f"{path}: {error.errors()[0]['msg']}") from error
        if manifest.format != FORMAT:
            text = f"{path} has format {manifest.format}, known is {FORMAT}"
            raise BadBackup("unknown_format", text)
        return manifest

    def finish(self, manifest: Manifest) -> None:
        """Make this the folder's backup; from here on it counts."""
        beside = self.root / f"{NAME}.new"
        with beside.open("w", encoding="utf-8") as file:
            file.write(manifest.model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.root / NAME)
        sync_folder(self.root)

    def remove_older(self, manifest: Manifest, named: set[str], before: datetime) -> None:
        """Remove tables and blobs of earlier backups, finished or not."""
        for path in self.root.glob("tables-*"):
            if path.name != manifest.folder:
                shutil.rmtree(path)
        blobs = self.blobs
        blobs.sweep(before)
        for sha256 in set(blobs.kept_before(before)) - named:
            blobs.delete(sha256)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
