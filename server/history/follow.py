"""Events as they happen, as server-sent events; the id of each is the cursor to go on from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import anyio
from sqlalchemy import Engine, select
from sse_starlette import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from server.api.paging import encode
from server.auth.keys import still_opens
from server.db import reading
from server.history.export import BATCH, Conditions
from server.history.naming import describe
from server.history.order import KEY, Position, after, newest, until
from server.history.schemas import EventOut
from server.tables import Event

#: Seconds between two looks at the history.
LOOK_INTERVAL = 0.5


@dataclass(frozen=True)
class Follower:
    """Somebody who waits for events: which ones, and behind which place in the order."""

    engine: Engine
    conditions: Conditions
    position: Position
    is_let_in: bool = True
    """False: the key by which it came has ended."""

    def look(self) -> tuple[list[ServerSentEvent], Follower]:
        """What has come since, at most BATCH, and the follower that has seen it."""
        with reading(self.engine) as session:
            last = newest(session)
            query = select(Event).where(*self.conditions(session), after(self.position))
            query = query.where(until(last)).order_by(*KEY).limit(BATCH)
            rows = list(session.scalars(query))
            found = describe(session, rows)
            if not still_opens(session):
                return [], replace(self, is_let_in=False)
        if len(rows) == BATCH:
            last = Position(rows[-1].transaction, rows[-1].id)
        sent = [_sent(row, event) for row, event in zip(rows, found, strict=True)]
        return sent, replace(self, position=max(last, self.position))


async def stream(follower: Follower, limit: int | None) -> AsyncIterator[ServerSentEvent]:
    """What the follower waits for; without a limit it ends when the client goes, or its key ends.

    It begins with an id alone: whoever loses the stream before the first event goes on from there.
    """
    left = limit
    yield ServerSentEvent(id=encode(follower.position), comment="open")
    while left is None or left > 0:
        found, follower = await run_in_threadpool(follower.look)
        if not follower.is_let_in:
            return
        for event in found[:left]:
            yield event
        left = None if left is None else left - len(found)
        if len(found) < BATCH and left != 0:
            await anyio.sleep(LOOK_INTERVAL)


def _sent(row: Event, event: EventOut) -> ServerSentEvent:
    return ServerSentEvent(
        event.model_dump_json(), event="event", id=encode([row.transaction, row.id])
    )
