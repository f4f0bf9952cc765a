"""The database: transactions and migrations; `server/engines.py` opens it.

Write transactions follow one another, on either database and across all processes: what one has
read, no other changes before its end (ADR 0014). Code that reads and then writes needs no locks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, make_url
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import TimeoutError as NoneFree
from sqlalchemy.orm import Session

from server.engines import CONNECTIONS, only_migration, open_engine
from server.errors import BadRequest, DatabaseError
from shared.errors import WeftError

__all__ = [
    "BATCH_ROWS",
    "as_ours",
    "check_current",
    "downgrade",
    "migrate",
    "migrations_dir",
    "open_current",
    "open_engine",
    "reading",
    "writing",
]

#: Most rows that one write transaction inserts or updates, so that others are not kept waiting.
BATCH_ROWS = 1_000

#: One snapshot for all that is read; PostgreSQL would else take a new one for each statement.
_SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session that sees one snapshot and changes nothing."""
    bind = engine.execution_options(**({} if engine.dialect.name == "sqlite" else _SNAPSHOT))
    with _seam(), Session(bind, expire_on_commit=False) as session:
        yield session


@contextmanager
def writing(engine: Engine, alone: bool = True) -> Iterator[Session]:
    """A session in one write transaction: committed at the end, rolled back on an exception.

    `alone=False` lets PostgreSQL run it beside others of its kind (never beside one that is alone).
    Such code must lock each row that it decides by (`with_for_update`), or change it by one
    conditional UPDATE. Raises DatabaseError; errors of constraints are left to the caller.
    """
    bind = engine.execution_options(writes="alone" if alone else "beside")
    with _seam(), Session(bind, expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def _seam() -> Iterator[None]:
    """Trouble of the driver becomes ours; a broken constraint stays for the caller to explain."""
    try:
        yield
    except NoneFree as error:
        raise DatabaseError("busy", "all connections of this process stayed in use") from error
    except DBAPIError as error:
        ours = _as_ours(error)
        if ours is None:
            raise
        raise ours from error


def as_ours(error: Exception) -> Exception:
    """What our error is for one of a driver that is used without SQLAlchemy; else the same."""
    if type(error).__module__.partition(".")[0] in ("sqlite3", "psycopg"):
        return _as_ours(DBAPIError(None, None, error)) or error
    if isinstance(error, TimeoutError):
        return DatabaseError("unreachable", "the database does not answer")
    return error


def _as_ours(error: DBAPIError) -> WeftError | None:
    if isinstance(error, DataError):
        return BadRequest("invalid", f"a value cannot be stored: {_first_line(error)}")
    state = getattr(error.orig, "sqlstate", None)
    if state is None and type(error.orig).__module__.startswith("psycopg"):
        # No state: it never came to an answer of PostgreSQL.
        lost = error.connection_invalidated or type(error.orig).__name__ == "OperationalError"
        return DatabaseError("unreachable", _first_line(error)) if lost else None
    return _of_state(state, error) if state else _of_sqlite(error)


#: SQLSTATE, or its class (two digits) -> our code. PostgreSQL's manual, appendix A.
STATES = {
    "08": "unreachable",
    "28": "unreachable",  # user or password
    "3D000": "unreachable",  # no such database
    "25006": "forbidden",  # a standby
    "25P03": "busy",  # this process stood still in the middle of the transaction
    "40": "busy",  # deadlock, serialization
    "42501": "forbidden",
    "53100": "no_space",
    "53": "busy",  # memory, connections
    "55P03": "busy",  # lock_timeout
    "57014": "busy",  # statement_timeout
    "57P": "unreachable",  # it is stopping or starting
    "58": "damaged",  # its files cannot be read
    "XX001": "damaged",
    "XX002": "damaged",
}


def _of_state(state: str, error: DBAPIError) -> DatabaseError | None:
    code = STATES.get(state) or STATES.get(state[:3]) or STATES.get(state[:2])
    return DatabaseError(code, f"{_first_line(error)} ({state})") if code else None


def _of_sqlite(error: DBAPIError) -> DatabaseError | None:
    text = str(error.orig).lower()
    if "full" in text or "no space" in text:
        return DatabaseError("no_space", "the database cannot grow: disk full")
    if "locked" in text or "busy" in text:
        return DatabaseError("busy", "the database stayed locked too long")
    if "malformed" in text or "not a database" in text or "disk i/o" in text:
        return DatabaseError("damaged", f"the database cannot be read: {error.orig}")
    return None


def _first_line(error: DBAPIError) -> str:
    return next(iter(str(error.orig).splitlines()), "the connection was lost")


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
    """Bring the schema of the database at `url` up to `revision`; processes do so in turn."""
    with _seam(), only_migration(url):
        command.upgrade(_config(url), revision)


def downgrade(url: str, revision: str) -> None:
    """Take the schema of the database at `url` back to `revision` (`base`: empty)."""
    with _seam(), only_migration(url):
        command.downgrade(_config(url), revision)


def open_current(url: str, auto_migrate: bool, connections: int = CONNECTIONS) -> Engine:
    """An engine for a database whose schema is up to date, brought there with `auto_migrate`.

    Raises DatabaseError `not_migrated`, and what opening the database may raise.
    """
    if auto_migrate:
        migrate(url)
    engine = open_engine(url, connections)
    try:
        check_current(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def open_existing(url: str) -> Engine:
    """As `open_engine`, but where SQLite has no file yet none is made.

    Raises DatabaseError `not_migrated`.
    """
    parsed = make_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database
    if is_file and not Path(str(parsed.database)).exists():
        raise DatabaseError("not_migrated", f"{parsed.database} is not there")
    return open_engine(url)


def check_current(engine: Engine) -> None:
    """Raise DatabaseError `not_migrated` where the schema is not the one this program needs."""
    wanted, found = known_revision(), schema_revision(engine)
    if found != wanted:
        text = f"schema is at {found or 'nothing'}, this program needs {wanted}"
        raise DatabaseError("not_migrated", text)


def known_revision() -> str:
    """The revision of the schema that this program needs."""
    return ", ".join(ScriptDirectory.from_config(_config("")).get_heads())


def schema_revision(engine: Engine) -> str:
    """The revision that the database's schema is at; empty: it has none."""
    with _seam(), engine.connect() as connection:
        return ", ".join(MigrationContext.configure(connection).get_current_heads())
