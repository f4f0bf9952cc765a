"""Rows as lines of JSON, the same whatever the database: times as RFC 3339, JSON as it is.

Leases and the installation's epoch belong to one database and are left out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, insert, select

from server.backup.folder import TableFile
from server.db import BATCH_ROWS
from server.errors import BadBackup
from server.tables import STATISTICS_BLOB, Base, Installation, Lease, Moment

Row = dict[str, Any]

LEFT_OUT = frozenset({Installation.__tablename__, Lease.__tablename__})


def tables() -> list[Table]:
    """All tables of a backup, those that others refer to first."""
    return [table for table in Base.metadata.sorted_tables if table.name not in LEFT_OUT]


def dump_table(connection: Connection, table: Table, path: Path) -> Iterator[Row]:
    """Write all rows to `path`, durably, giving each on the way."""
    query = select(table).order_by(*table.primary_key.columns)
    streamed = connection.execution_options(yield_per=BATCH_ROWS)
    with path.open("w", encoding="utf-8") as file:
        for found in streamed.execute(query).mappings():
            row = {str(name): value for name, value in found.items()}
            file.write(json.dumps(_plain(row), ensure_ascii=False, separators=(",", ":")) + "\n")
            yield row
        file.flush()
        os.fsync(file.fileno())


def describe_file(path: Path) -> TableFile | None:
    """Rows and SHA-256 of a table's file; None where it is not there."""
    sha, rows = hashlib.sha256(), 0
    if not path.is_file():
        return None
    with path.open("rb") as file:
        for line in file:
            sha.update(line)
            rows += 1
    return TableFile(rows=rows, sha256=sha.hexdigest())


def load_table(connection: Connection, table: Table, path: Path) -> None:
    """Insert the rows of `path`. Raises BadBackup `damaged`."""
    batch: list[Row] = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            batch.append(_typed(table, path, line))
            if len(batch) == BATCH_ROWS:
                connection.execute(insert(table), batch)
                batch = []
    if batch:
        connection.execute(insert(table), batch)


def read_rows(table: Table, path: Path) -> Iterator[Row]:
    """The rows of a table's file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield _typed(table, path, line)


def named_blobs(table: str, row: Mapping[str, Any]) -> Iterator[str]:
    """The blobs that a row names and that retention has not removed."""
    if table not in ("versions", "packages") or row["removed_at"] is not None:
        return
    if table == "packages":
        yield row["sha256"]
        return
    yield row["blob"]
    if STATISTICS_BLOB in row["metrics"]:
        yield row["metrics"][STATISTICS_BLOB]


def _plain(row: Mapping[str, Any]) -> Row:
    return {n: v.isoformat() if isinstance(v, datetime) else v for n, v in row.items()}


def _typed(table: Table, path: Path, line: str) -> Row:
    """A row as the database takes it; every column is there, or it is no row of this schema."""
    try:
        found = json.loads(line)
        return {c.name: _value(c.type, found[c.name]) for c in table.columns}
    except (ValueError, KeyError, TypeError) as error:
        raise BadBackup("damaged", f"{path}: {error!r} in {line[:80]!r}") from error


def _value(kind: object, value: Any) -> Any:
    if isinstance(kind, Moment) and value is not None:
        return datetime.fromisoformat(value)
    return value
