"""Opens databases: SQLite files and PostgreSQL, each set up as this server needs it.

Both begin a write transaction by waiting for the one under way to end (see `server/db.py`): SQLite
by `BEGIN IMMEDIATE`, PostgreSQL by an advisory lock that writers hold until their end. Writers that
need not be alone (`writes="beside"`) share that lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from shared.errors import BadConfig

BUSY_TIMEOUT_MS = 15_000

#: A statement that takes longer is broken off: something is wrong, and others wait for it.
STATEMENT_TIMEOUT_MS = 60_000

#: A process that stops in the middle of a transaction loses its connection, and with it its locks.
IDLE_TIMEOUT_MS = 60_000

#: Connections of one process to PostgreSQL, which by default takes 100 in all.
CONNECTIONS = 20

PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}",
)

#: PostgreSQL's advisory locks are numbers; these are ours, the same in every release.
WRITING_LOCK = 0x77656674_0001
MIGRATION_LOCK = 0x77656674_0002

#: What each session is given before anything else; the URL's own `options` come after, and win.
SESSION = {
    "timezone": "utc",
    "lock_timeout": str(BUSY_TIMEOUT_MS),
    "statement_timeout": str(STATEMENT_TIMEOUT_MS),
    "idle_in_transaction_session_timeout": str(IDLE_TIMEOUT_MS),
}
CONNECT_SECONDS = 10


def open_engine(url: str, connections: int = CONNECTIONS) -> Engine:
    """An engine for `url`; a missing folder of an SQLite file is made.

    Raises BadConfig `invalid` where the URL cannot be read, names another kind of database, or the
    driver is not installed. Nothing is connected yet.
    """
    parsed = parse(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed)
    return _open_postgres(parsed, connections)


def parse(url: str) -> URL:
    """The URL, with the driver that we use; raises BadConfig `invalid`."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise BadConfig("invalid", "WEFT_DATABASE_URL is no URL of a database") from error
    kind = parsed.drivername.partition("+")[0]
    if kind in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if kind == "sqlite":
        return parsed
    text = f"WEFT_DATABASE_URL: {kind} is not supported; use sqlite or postgresql"
    raise BadConfig("invalid", text)


def _open_sqlite(url: URL) -> Engine:
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    # Errors are logged; the values of a statement may be secrets of webhooks, or tokens.
    engine = create_engine(
        url, poolclass=QueuePool, pool_size=10, max_overflow=40, hide_parameters=True
    )
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


def session_arguments(url: URL) -> dict[str, Any]:
    """What a connection to that PostgreSQL is opened with, besides what its URL says."""
    given = url.query.get("options", ())
    options = [f"-c {name}={value}" for name, value in SESSION.items()]
    options += [given] if isinstance(given, str) else given
    arguments: dict[str, Any] = {"options": " ".join(options)}
    if "connect_timeout" not in url.query:
        arguments["connect_timeout"] = CONNECT_SECONDS
    return arguments


def _open_postgres(url: URL, connections: int) -> Engine:
    try:
        engine = create_engine(
            url,
            connect_args=session_arguments(url),
            pool_pre_ping=True,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=BUSY_TIMEOUT_MS / 1000,
            pool_recycle=3600,
            hide_parameters=True,
        )
    except ModuleNotFoundError as error:
        text = "WEFT_DATABASE_URL: PostgreSQL needs the extra weft[postgres], which is missing"
        raise BadConfig("invalid", text) from error
    event.listen(engine, "begin", _begin_postgres)
    return engine


def _begin_postgres(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    if writes:
        shared = "_shared" if writes == "beside" else ""
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock{shared}({WRITING_LOCK})")


@contextmanager
def only_migration(url: str) -> Iterator[None]:
    """Keep other processes from migrating the same PostgreSQL database; waits until they have.

    SQLite needs nothing: there each migration is a write transaction of its own file.
    """
    engine = open_engine(url, connections=1)
    try:
        if engine.dialect.name == "sqlite":
            yield
            return
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("SET lock_timeout = 0")
            connection.exec_driver_sql("SET statement_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_lock({MIGRATION_LOCK})")
            yield
    finally:
        engine.dispose()
