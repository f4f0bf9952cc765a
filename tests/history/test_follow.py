"""The history as it happens."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

from server.db import writing
from server.history.events import record


def followed(client: Any, query: str, **headers: str) -> Iterator[tuple[str, Any]]:
    """The events of a stream, each with its cursor; the first answer is `None`: it is open."""
    url = f"/api/v1/events/follow?{query}"
    with client.stream("GET", url, headers=headers) as answer:
        answer.raise_for_status()
        yield "", None
        cursor = ""
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                cursor = value
            if name == "data":
                yield cursor, json.loads(value)


def tell(server: Any, *kinds: str) -> None:
    with writing(server.app.state.engine) as session:
        for kind in kinds:
            record(session, kind)


def test_it_begins_now_and_ends_after_the_limit(fleet: Any) -> None:
    stream = followed(fleet.server.client, "limit=2&kind=group")
    next(stream)
    tell(fleet.server, "group.created", "other", "group.changed", "group.deleted")
    assert [event["kind"] for _, event in stream] == ["group.created", "group.changed"]


def test_a_cursor_goes_on_behind_the_last_event_also_on_the_next_server(
    fleet: Any, serve: Any
) -> None:
    tell(fleet.server, "one", "two", "three")
    stream = list(followed(fleet.server.client, "limit=1&kind=one&since=2026-01-01T00:00:00Z"))
    cursor, event = stream[-1]
    assert event["kind"] == "one"
    fleet.server.stop()
    again = serve()
    found = list(followed(again.client, f"limit=2&cursor={cursor}"))[1:]
    assert [event["kind"] for _, event in found] == ["two", "three"]
    [last] = list(followed(again.client, "limit=1", **{"Last-Event-ID": found[0][0]}))[1:]
    assert last[1]["kind"] == "three"


def test_followers_do_not_hold_each_other_up(fleet: Any) -> None:
    heard: list[str] = []
    opened = threading.Barrier(4, timeout=30)

    def follow() -> None:
        stream = followed(fleet.server.client, "limit=1&kind=group")
        next(stream)
        opened.wait()
        heard.extend(event["kind"] for _, event in stream)

    threads = [threading.Thread(target=follow) for _ in range(3)]
    for thread in threads:
        thread.start()
    opened.wait()
    tell(fleet.server, "group.created")
    for thread in threads:
        thread.join()
    assert heard == ["group.created"] * 3
