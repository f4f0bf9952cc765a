"""Takes a backup while the server runs.

1. work alone in the folder
2. write all tables as one snapshot of the database sees them, and note the blobs that they name
3. copy the blobs that are not there yet, each checked against its digest
4. where retention removed a blob meanwhile, the snapshot is out of date: take another one
5. write `backup.json`; from now on this is the folder's backup
6. remove what only earlier ones named
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version

from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.orm import Session

from server.backup.folder import BackupFolder, Manifest, TableFile, sync_folder
from server.backup.rows import describe_file, dump_table, named_blobs, tables
from server.db import check_current, reading, schema_revision
from server.errors import BlobError
from server.storage.base import BlobStore
from server.storage.local import LocalStore
from server.tables import Installation, now

#: Snapshots until one is given up: retention rarely removes a blob within one, never in each.
SNAPSHOTS = 3

Advance = Callable[[int], None]


class _Gone(Exception):
    """A blob that the snapshot names is not in the store."""

    def __init__(self, error: BlobError) -> None:
        super().__init__(str(error))
        self.error = error


def take(engine: Engine, blobs: BlobStore, target: BackupFolder, advance: Advance) -> Manifest:
    """Make `target` a backup of the database and its blobs; `advance` hears the bytes copied.

    Raises BadBackup `busy`, BlobError `missing` or `damaged`, DatabaseError, NoSpace. An earlier
    backup in the folder stays whole until this one is.
    """
    check_current(engine)
    with target.locked():  # 1
        started = now()
        for attempt in range(1, SNAPSHOTS + 1):
            named = set[str]()
            manifest = _dump(engine, target, started, attempt, named)  # 2
            try:
                size = _copy_all(blobs, target.blobs, named, advance)  # 3
            except _Gone as gone:  # 4
                if attempt == SNAPSHOTS:
                    raise gone.error from gone
                continue
            break
        manifest = manifest.model_copy(update={"blobs": len(named), "blob_bytes": size})
        target.finish(manifest)  # 5
        target.remove_older(manifest, named, started)  # 6
    return manifest


def _dump(
    engine: Engine, target: BackupFolder, started: datetime, attempt: int, named: set[str]
) -> Manifest:
    folder = f"tables-{started:%Y%m%dT%H%M%S}{started.microsecond:06}{attempt}Z"
    (target.root / folder).mkdir()
    files: dict[str, TableFile] = {}
    with snapshot(engine) as connection:
        epoch = connection.scalar(select(Installation.epoch)) or ""
        for table in tables():
            path = target.table(folder, table.name)
            for row in dump_table(connection, table, path):
                named.update(named_blobs(table.name, row))
            described = describe_file(path)
            assert described is not None
            files[table.name] = described
    sync_folder(target.root / folder)
    return Manifest(
        schema_revision=schema_revision(engine),
        tool_version=version("weft"),
        taken_at=started,
        epoch=epoch,
        folder=folder,
        tables=files,
        blobs=0,
        blob_bytes=0,
    )


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection on which everything is read as it was at one moment."""
    with reading(engine) as session:
        lift_limits(session)
        yield session.connection()


def lift_limits(session: Session) -> None:
    """Let this transaction last as long as it must: PostgreSQL would end it after a minute."""
    if session.get_bind().dialect.name == "postgresql":
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            session.execute(text(f"SET LOCAL {name} = 0"))


def _copy_all(source: BlobStore, target: LocalStore, named: set[str], advance: Advance) -> int:
    return sum(_copy(source, target, sha256, advance) for sha256 in sorted(named))


def _copy(source: BlobStore, target: LocalStore, sha256: str, advance: Advance) -> int:
    try:
        size = source.size(sha256)
        if copy_blob(source, target, sha256, size):
            advance(size)
    except BlobError as error:
        if error.code == "blob.missing":
            raise _Gone(error) from error
        raise
    return size


def copy_blob(source: BlobStore, target: BlobStore, sha256: str, size: int) -> bool:
    """Have `target` hold the blob, checked while it is copied; False where it does already."""
    try:
        if target.size(sha256) == size:
            return False
    except BlobError as error:
        if error.code != "blob.missing":
            raise
    with target.receive(size) as incoming:
        for data in source.chunks(sha256):
            incoming.write(data)
        if incoming.finish().sha256 != sha256:
            raise BlobError("damaged", f"the blob {sha256} holds other bytes")
        incoming.keep()
    return True
