"""Restores a backup into an empty database and a blob store, of whatever kind they are.

1. refuse what cannot be restored: a damaged table, another schema, a database that holds something
2. copy the blobs that the store does not hold, each checked against its digest
3. in one transaction insert all rows and make them fit the new present (see `afterwards`)

An interruption leaves blobs at most; the same command then goes on. Nothing is ever overwritten.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from server.backup import afterwards
from server.backup.folder import BackupFolder, Manifest
from server.backup.rows import describe_file, load_table, tables
from server.backup.take import copy_blob, lift_limits
from server.backup.verify import check_schema, names
from server.db import check_current, reading, writing
from server.errors import BadBackup, DatabaseError
from server.storage.base import BlobStore
from server.tables import Lease, now


def restore(
    source: BackupFolder, engine: Engine, blobs: BlobStore, advance: Callable[[int], None]
) -> Manifest:
    """Put the backup into the migrated, empty database; `advance` hears the bytes copied.

    Raises BadBackup `not_empty`, `damaged`, `wrong_schema` and what `load` raises, DatabaseError
    `in_use`, BlobError, NoSpace.
    """
    manifest = source.load()  # 1
    check_schema(manifest)
    _check_tables(source, manifest)
    check_current(engine)
    with reading(engine) as session:
        _check_unused(session)
    kept = source.blobs
    for sha256 in sorted(names(source, manifest)):  # 2
        size = kept.size(sha256)
        if copy_blob(kept, blobs, sha256, size):
            advance(size)
    with writing(engine) as session:  # 3
        lift_limits(session)
        _check_unused(session)
        for table in tables():
            load_table(session.connection(), table, source.table(manifest.folder, table.name))
        afterwards.adjust(session, manifest)
    return manifest


def _check_tables(source: BackupFolder, manifest: Manifest) -> None:
    for table in tables():
        told = manifest.tables.get(table.name)
        if told != describe_file(source.table(manifest.folder, table.name)):
            raise BadBackup("damaged", f"the table {table.name} is not as it was written")


def _check_unused(session: Session) -> None:
    for table in tables():
        if session.scalar(select(func.count()).select_from(select(table).limit(1).subquery())):
            raise BadBackup("not_empty", f"the database has rows in {table.name}")
    holder = session.scalar(select(Lease.holder).where(Lease.until > now()).limit(1))
    if holder is not None:
        raise DatabaseError("in_use", f"the server {holder} uses this database")
