"""The database: engine, transactions, migrations.

On SQLite a write transaction takes the lock at its start (`BEGIN IMMEDIATE`): a transaction that
reads first and writes later would otherwise fail with "database is locked" instead of waiting.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from server.errors import DatabaseError

BUSY_TIMEOUT_MS = 15_000

#: Most rows that one write transaction inserts or updates, so that others are not kept waiting.
BATCH_ROWS = 1_000

PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}",
)


def open_engine(url: str) -> Engine:
    """An engine for `url`; on SQLite with the pragmas above, and the folder made if needed."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, poolclass=QueuePool, pool_size=10, max_overflow=40)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, below
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session that sees one snapshot and changes nothing."""
    with _seam(), Session(engine, expire_on_commit=False) as session:
        yield session


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """A session in one write transaction: committed at the end, rolled back on an exception."""
    bind = engine.execution_options(writes=True)
    with _seam(), Session(bind, expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def _seam() -> Iterator[None]:
    """Trouble of the driver becomes ours; a broken constraint stays for the caller to explain."""
    try:
        yield
    except DBAPIError as error:
        text = str(error.orig).lower()
        if "full" in text or "no space" in text:
            raise DatabaseError("no_space", "the database cannot grow: disk full") from error
        if "locked" in text or "busy" in text:
            raise DatabaseError("busy", "the database stayed locked too long") from error
        if "malformed" in text or "not a database" in text or "disk i/o" in text:
            raise DatabaseError("damaged", f"the database cannot be read: {error.orig}") from error
        raise


def migrations_dir() -> Path:
    """The Alembic scripts: `migrations/` of a checkout, or inside the installed wheel."""
    installed = Path(__file__).parent / "_migrations"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "migrations"


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_dir()).replace("%", "%%"))
    config.attributes["url"] = url
    return config


def migrate(url: str, revision: str = "head") -> None:
    """Bring the schema of the database at `url` up to `revision`."""
    with _seam():
        command.upgrade(_config(url), revision)


def downgrade(url: str, revision: str) -> None:
    """Take the schema of the database at `url` back to `revision` (`base`: empty)."""
    with _seam():
        command.downgrade(_config(url), revision)


def check_current(engine: Engine) -> None:
    """Raise DatabaseError `not_migrated` where the schema is not the one this program needs."""
    wanted = set(ScriptDirectory.from_config(_config("")).get_heads())
    with _seam(), engine.connect() as connection:
        found = set(MigrationContext.configure(connection).get_current_heads())
    if found != wanted:
        raise DatabaseError(
            "not_migrated",
            f"schema is at {', '.join(found) or 'nothing'}, this program needs {', '.join(wanted)}",
        )
