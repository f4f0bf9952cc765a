"""Answers that do not end by themselves: so many of them at once, as each looks again and again."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent

from server.api.gate import Overloaded

#: Streams of one process.
MOST_STREAMS = 200
#: Until somebody who found no room should ask again.
RETRY_SECONDS = 30.0

_open: set[object] = set()


def follow(events: AsyncIterator[ServerSentEvent]) -> EventSourceResponse:
    """The answer that sends `events` until the client goes. Raises Overloaded."""
    if len(_open) >= MOST_STREAMS:
        raise Overloaded(RETRY_SECONDS)
    return EventSourceResponse(_counted(events))


async def _counted(events: AsyncIterator[ServerSentEvent]) -> AsyncIterator[ServerSentEvent]:
    stream = object()
    _open.add(stream)
    try:
        async for event in events:
            yield event
    finally:
        _open.discard(stream)
