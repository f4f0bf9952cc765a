"""Streams end with the key by which they were opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import update

from server.db import writing
from server.history.events import record
from server.tables import ApiKey, Refinement, now
from tests.access.conftest import Keys

FOLLOW = "/api/v1/events/follow"
EVE = "eve"


def revoke(keys: Keys) -> None:
    keys.admin.post(f"/api/v1/access/keys/{EVE}/revoke").raise_for_status()


def expire(keys: Keys) -> None:
    with writing(keys.engine) as session:
        session.execute(update(ApiKey).where(ApiKey.name == EVE).values(expires_at=now()))


def tell(keys: Keys, *kinds: str) -> None:
    with writing(keys.engine) as session:
        for kind in kinds:
            record(session, kind)


def stream(keys: Keys, path: str, key: str) -> Iterator[str]:
    """The names and values that a stream sends, until the server ends it."""
    with keys.client(key).stream("GET", path) as answer:
        answer.raise_for_status()
        yield from answer.iter_lines()


def set_state(keys: Keys, state: str) -> None:
    with writing(keys.engine) as session:
        session.execute(update(Refinement).values(state=state, heartbeat_at=now()))


ends = pytest.mark.parametrize("end", [revoke, expire])


@ends
def test_whoever_follows_the_history_hears_nothing_after_the_end_of_the_key(
    keys: Keys, end: Callable[[Keys], None]
) -> None:
    lines = stream(keys, f"{FOLLOW}?kind=group&limit=2", keys.make(EVE, "viewer"))
    next(lines)
    tell(keys, "group.created")
    while "group.created" not in next(lines):
        pass
    end(keys)
    tell(keys, "group.deleted")
    assert not [line for line in lines if "group.deleted" in line]


@ends
def test_whoever_follows_a_refinement_hears_nothing_after_the_end_of_the_key(
    world: Keys, end: Callable[[Keys], None]
) -> None:
    set_state(world, "running")
    lines = stream(world, "/api/v1/refinements/1/events", world.make(EVE, "viewer"))
    next(lines)
    end(world)
    set_state(world, "succeeded")
    assert not [line for line in lines if "succeeded" in line]


def test_a_key_that_goes_on_is_told_on(world: Keys) -> None:
    set_state(world, "running")
    lines = stream(world, "/api/v1/refinements/1/events", world.make(EVE, "viewer"))
    next(lines)
    set_state(world, "succeeded")
    assert [line for line in lines if "succeeded" in line]
