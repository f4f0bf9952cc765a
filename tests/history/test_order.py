"""No reader passes an event whose transaction is still open, however transactions overlap."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from server.api.paging import Slice, page_of
from server.db import reading, writing
from server.history.events import record
from server.history.follow import Follower
from server.history.order import KEY, Position, adopt_restored, newest, settled
from server.tables import Event, Webhook


def shown(engine: Engine, descending: bool = False, limit: int = 50) -> list[str]:
    """The kinds that a reader gets who follows the cursors to the end."""
    kinds: list[str] = []
    cursor: str | None = None
    while True:
        with reading(engine) as session:
            query = select(Event).where(settled())
            part = Slice(cursor=cursor, limit=limit)
            rows, cursor = page_of(session, query, KEY, part, descending)
            kinds += [row.kind for row in rows]
        if cursor is None:
            return kinds


def tell(engine: Engine, *kinds: str) -> None:
    with writing(engine, alone=False) as session:
        for kind in kinds:
            record(session, kind)
            session.flush()


@pytest.mark.postgres("transactions that write overlap")
def test_an_event_of_a_later_transaction_waits_for_the_earlier_one(engine: Engine) -> None:
    tell(engine, "before")
    with writing(engine, alone=False) as slow:
        record(slow, "slow.first")
        slow.flush()
        tell(engine, "quick")  # a later transaction, committed first
        assert shown(engine) == shown(engine, descending=True) == ["before"]
        record(slow, "slow.second")
    assert shown(engine) == ["before", "slow.first", "slow.second", "quick"]
    assert shown(engine, descending=True) == shown(engine)[::-1]


@pytest.mark.postgres("transactions that write overlap")
@pytest.mark.parametrize("limit", [1, 2, 50])
def test_a_follower_gets_every_event_once(engine: Engine, limit: int) -> None:
    """Its cursor is taken while one transaction is open and another one has ended."""
    follower = Follower(engine, lambda _: [], Position())
    got: list[Any] = []

    def look() -> None:
        nonlocal follower
        found, follower = follower.look()
        got.extend(found)

    with writing(engine, alone=False) as first, writing(engine, alone=False) as second:
        record(first, "first")
        first.flush()
        record(second, "second")
        second.flush()
        tell(engine, "third")
        look()
        second.commit()
        look()
        assert got == []
        first.commit()
    look()
    look()
    assert [sent.data.partition('"kind":"')[2].split('"')[0] for sent in got] == [
        "first",
        "second",
        "third",
    ]
    assert shown(engine, limit=limit) == ["first", "second", "third"]


@pytest.mark.sqlite("one transaction writes at a time")
def test_on_sqlite_the_second_transaction_begins_after_the_first(engine: Engine) -> None:
    begun = threading.Event()

    def quick() -> None:
        begun.set()
        tell(engine, "quick")

    with writing(engine) as slow:
        record(slow, "slow.first")
        slow.flush()
        other = threading.Thread(target=quick)
        other.start()
        begun.wait()
        assert shown(engine) == []
        record(slow, "slow.second")
    other.join()
    assert shown(engine) == ["slow.first", "slow.second", "quick"]


def test_what_was_undone_is_never_shown(engine: Engine) -> None:
    with writing(engine) as session:
        record(session, "undone")
        session.flush()
        session.rollback()
    tell(engine, "done")
    assert shown(engine) == ["done"]


@pytest.mark.postgres("transactions have numbers")
def test_numbers_of_another_cluster_are_forgotten(engine: Engine) -> None:
    """As after a restore: the backup's numbers lie far above those of this cluster."""
    tell(engine, "one", "two", "three")
    far = 1 << 50
    with writing(engine) as session:
        # Event 3 was committed before event 2; the webhook had passed both, not event 1.
        for event_id, number in ((3, far), (2, far + 1), (1, far + 2)):
            session.execute(update(Event).where(Event.id == event_id).values(transaction=number))
        passed = {"after_transaction": far + 1, "after_event": 2}
        session.add(Webhook(url="https://example.org", secret="s", **passed))
    assert shown(engine) == []
    adopt_restored(engine)
    assert shown(engine) == ["one", "two", "three"]
    with reading(engine) as session:
        webhook = session.get_one(Webhook, 1)
        assert (webhook.after_transaction, webhook.after_event) == (0, 0)
        assert newest(session) == Position(0, 3)
    tell(engine, "four")
    adopt_restored(engine)
    assert shown(engine) == ["one", "two", "three", "four"]
    with reading(engine) as session:
        assert newest(session).transaction > 0


def test_on_a_sound_database_nothing_is_adopted(engine: Engine) -> None:
    tell(engine, "one")
    with reading(engine) as session:
        before = newest(session)
    adopt_restored(engine)
    with reading(engine) as session:
        assert newest(session) == before
