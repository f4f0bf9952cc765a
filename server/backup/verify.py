"""Reads a whole backup and says what is wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from server.backup.folder import BackupFolder, Manifest
from server.backup.rows import describe_file, named_blobs, read_rows, tables
from server.db import known_revision
from server.errors import BadBackup, BlobError

SHOWN = 5


def verify(folder: BackupFolder, advance: Callable[[int], None]) -> Manifest:
    """Check every byte; `advance` hears the bytes of blobs read.

    Raises BadBackup `damaged`, which names the first things that are wrong, and what `load` raises.
    """
    manifest = folder.load()
    found = list(_check_tables(folder, manifest))
    if not found:  # else the rows cannot be trusted to name the blobs
        found = list(_check_blobs(folder, manifest, advance))
    if found:
        more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise BadBackup("damaged", f"{folder.root}: {'; '.join(found[:SHOWN])}{more}")
    return manifest


def check_schema(manifest: Manifest) -> None:
    """Raise BadBackup `wrong_schema` where this program has other tables."""
    wanted = known_revision()
    if manifest.schema_revision != wanted:
        text = (
            f"its schema is {manifest.schema_revision} (Weft {manifest.tool_version}), "
            f"this program's is {wanted}"
        )
        raise BadBackup("wrong_schema", text)


def _check_tables(folder: BackupFolder, manifest: Manifest) -> Iterator[str]:
    for name, told in manifest.tables.items():
        if describe_file(folder.table(manifest.folder, name)) != told:
            yield f"the table {name} is not as it was written"


def names(folder: BackupFolder, manifest: Manifest) -> set[str]:
    """The blobs that a backup's rows name."""
    return {
        sha256
        for table in tables()
        if table.name in ("versions", "packages")
        for row in read_rows(table, folder.table(manifest.folder, table.name))
        for sha256 in named_blobs(table.name, row)
    }


def _check_blobs(
    folder: BackupFolder, manifest: Manifest, advance: Callable[[int], None]
) -> Iterator[str]:
    check_schema(manifest)
    store = folder.blobs
    for sha256 in sorted(names(folder, manifest)):
        digest = hashlib.sha256()
        try:
            for data in store.chunks(sha256):
                digest.update(data)
                advance(len(data))
        except BlobError as error:
            yield error.message
        else:
            if digest.hexdigest() != sha256:
                yield f"the blob {sha256} holds other bytes"
