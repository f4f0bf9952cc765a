"""Who asks, and whether there is news: the one query behind every request of a device.

Nearly all polls are idle, so this is what a fleet costs. Nothing is cached: a device asks once a
minute, and would find an entry that is a second old with a chance of one in sixty (ADR 0017).
Instead the query is made cheap: one text, prepared once, on a connection of its own, without a
transaction, in the event loop itself, since the way to a thread and back costs more than the query.

- SQLite: the read takes microseconds and never waits for a writer (write-ahead log).
- PostgreSQL: the loop does not wait for the answer. Requests that arrive meanwhile are answered
  together by the next query, so the more there are, the less each of them costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sqlalchemy import ARRAY, ColumnElement, Engine, String, any_, bindparam, func, or_, select

from server.db import as_ours
from server.engines import session_arguments
from server.tables import Assignment, Device

if TYPE_CHECKING:
    import psycopg

#: Most requests that one query answers.
BATCH = 500

#: SQLite's reads wait for nothing; where one does after all, it must not hold up the event loop.
BUSY_MS = 20

#: After so long PostgreSQL counts as unreachable: polls must not pile up behind a dead connection.
ANSWER_SECONDS = 15.0


class Entry(NamedTuple):
    """What a request needs to know of its device."""

    device_id: str
    generation: int
    waits: bool
    """Whether something of it is held, hence must be planned anew at every poll."""
    poll_interval: float | None
    """Seconds; None: the server's setting."""
    standing: str = "accepted"


class Roster(Protocol):
    """Finds devices by the hash of their token, as the database has them now.

    A token that has expired is nobody's.
    """

    async def find(self, token_hash: str) -> Entry | None:
        """The device of that token; None where there is none. Raises DatabaseError."""

    async def close(self) -> None:
        """Leave the database."""


def open_roster(engine: Engine) -> Roster:
    """The roster of that database."""
    return SqliteRoster(engine) if engine.dialect.name == "sqlite" else PostgresRoster(engine)


class SqliteRoster:
    """See the module's docstring."""

    def __init__(self, engine: Engine) -> None:
        pooled = engine.raw_connection()
        connection: Any = pooled.driver_connection
        pooled.detach()
        self._connection = connection
        self._connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        self._query = _text(engine, Device.token_hash == bindparam("token_hash"))

    async def find(self, token_hash: str) -> Entry | None:  # noqa: D102
        try:
            row = self._connection.execute(self._query, (token_hash,)).fetchone()
        except Exception as error:
            raise as_ours(error) from error
        return row and Entry(*row[1:])

    async def close(self) -> None:  # noqa: D102
        self._connection.close()


class PostgresRoster:
    """See the module's docstring."""

    def __init__(self, engine: Engine) -> None:
        hashes = bindparam("hashes", type_=ARRAY(String))
        self._query = _text(engine, Device.token_hash == any_(hashes))
        self._connect = _connector(engine)
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._asked: list[tuple[str, asyncio.Future[Entry | None]]] = []
        self._answering: asyncio.Task[None] | None = None

    async def find(self, token_hash: str) -> Entry | None:  # noqa: D102
        future: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        self._asked.append((token_hash, future))
        if self._answering is None:
            self._answering = asyncio.create_task(self._answer())
        return await future

    async def close(self) -> None:  # noqa: D102
        if self._answering is not None:
            await self._answering
        if self._connection is not None:
            await self._connection.close()

    async def _answer(self) -> None:
        """Answer until nobody asks any more."""
        while self._asked:
            batch, self._asked = self._asked[:BATCH], self._asked[BATCH:]
            try:
                found = await self._read([token_hash for token_hash, _ in batch])
            except Exception as error:
                for _, future in batch:
                    if not future.done():  # its client may have left
                        future.set_exception(as_ours(error))
                continue
            for token_hash, future in batch:
                if not future.done():
                    future.set_result(found.get(token_hash))
        self._answering = None

    async def _read(self, hashes: Sequence[str]) -> dict[str, Entry]:
        async with asyncio.timeout(ANSWER_SECONDS):
            try:
                return await self._query_once(hashes)
            except Exception:
                if self._connection is not None and not self._connection.closed:
                    raise
            return await self._query_once(hashes)  # PostgreSQL was started anew, or a proxy was

    async def _query_once(self, hashes: Sequence[str]) -> dict[str, Entry]:
        if self._connection is None or self._connection.closed:
            self._connection = await self._connect()
        cursor = await self._connection.execute(self._query, {"hashes": hashes})
        return {token_hash: Entry(*entry) for token_hash, *entry in await cursor.fetchall()}


def _text(engine: Engine, asked: ColumnElement[bool]) -> Any:
    """The query for the devices that are asked for: rows of token hash and Entry."""
    held = select(Assignment.id).where(
        Assignment.device_id == Device.id,
        Assignment.finished_at.is_(None),
        Assignment.held.is_not(None),
    )
    query = select(
        Device.token_hash,
        Device.id,
        Device.generation,
        held.exists(),
        Device.poll_interval,
        Device.standing,
    )
    expires = Device.token_expires_at
    is_valid = or_(expires.is_(None), expires > func.current_timestamp())
    return str(query.where(asked, is_valid).compile(dialect=engine.dialect))


def _connector(engine: Engine) -> Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]:
    """Opens connections like those of the engine, but asynchronous and without transactions."""
    from psycopg import AsyncConnection

    _, of_url = engine.dialect.create_connect_args(engine.url)
    arguments = {**of_url, **session_arguments(engine.url)}
    return lambda: AsyncConnection.connect(**arguments, autocommit=True)
