"""Who asks, and whether there is news: on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, insert, text, update

from server.db import open_engine, writing
from server.devices.roster import Entry, Roster, open_roster
from server.errors import DatabaseError
from server.tables import Assignment, Device, Model, Rollout, Version, now


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    with writing(engine) as session:
        rows = [
            {"id": f"d{n}", "name": "cam", "token_hash": f"h{n}", "generation": n + 1}
            for n in range(3)
        ]
        session.execute(insert(Device), rows)
    yield engine
    engine.dispose()


def with_roster(engine: Engine, use: Callable[[Roster], Any]) -> Any:
    """What `use` returns, in an event loop with a roster of that database."""

    async def run() -> Any:
        roster = open_roster(engine)
        try:
            return await use(roster)
        finally:
            await roster.close()

    return asyncio.run(run())


def find(engine: Engine, token_hash: str) -> Entry | None:
    found: Entry | None = with_roster(engine, lambda roster: roster.find(token_hash))
    return found


def test_a_device_is_found_by_its_token(engine: Engine) -> None:
    assert find(engine, "h1") == Entry("d1", 2, False, None)
    assert find(engine, "h9") is None
    with writing(engine) as session:
        session.execute(update(Device).where(Device.id == "d1").values(poll_interval=5.5))
    assert find(engine, "h1") == Entry("d1", 2, False, 5.5)


def test_a_held_assignment_makes_a_device_wait(engine: Engine) -> None:
    with writing(engine) as session:
        model = Model(name="m")
        session.add(model)
        session.flush()
        digest = "0" * 64
        version = Version(
            model_id=model.id, number=1, weights_digest=digest, blob=digest, size_bytes=1,
            schema={}, schema_digest=digest, source="uploaded",
        )  # fmt: skip
        session.add(version)
        session.flush()
        rollout = Rollout(model_id=model.id, version_id=version.id)
        session.add(rollout)
        session.flush()
        ids = {"rollout_id": rollout.id, "model_id": model.id}
        session.add(Assignment(device_id="d0", held="over_budget", **ids))
        session.add(Assignment(device_id="d1", **ids))
        session.add(Assignment(device_id="d2", held="over_budget", finished_at=now(), **ids))
    found = [find(engine, f"h{n}") for n in range(3)]
    assert [entry and entry.waits for entry in found] == [True, False, False]


def test_many_ask_at_once_and_each_gets_its_own(engine: Engine) -> None:
    async def ask(roster: Roster) -> list[Entry | None]:
        return await asyncio.gather(*(roster.find(f"h{n % 4}") for n in range(1200)))

    found = with_roster(engine, ask)
    assert [entry and entry.device_id for entry in found] == ["d0", "d1", "d2", None] * 300


def test_who_leaves_while_asking_spoils_nothing_for_others(engine: Engine) -> None:
    async def ask(roster: Roster) -> Entry | None:
        leaving = asyncio.create_task(roster.find("h0"))
        staying = asyncio.create_task(roster.find("h1"))
        await asyncio.sleep(0)
        leaving.cancel()
        return await staying

    assert with_roster(engine, ask) == Entry("d1", 2, False, None)


def test_what_was_written_before_the_question_is_in_the_answer(engine: Engine) -> None:
    async def ask(roster: Roster) -> list[int]:
        seen = []
        for _ in range(20):
            with writing(engine) as session:
                bump = {"generation": Device.generation + 1}
                session.execute(update(Device).where(Device.id == "d0").values(bump))
            entry = await roster.find("h0")
            assert entry is not None
            seen.append(entry.generation)
        return seen

    assert with_roster(engine, ask) == list(range(2, 22))


def test_a_writer_keeps_nobody_waiting(engine: Engine) -> None:
    async def ask(roster: Roster) -> Entry | None:
        with writing(engine) as session:
            session.execute(update(Device).where(Device.id == "d0").values(generation=9))
            return await asyncio.wait_for(roster.find("h0"), 5)

    assert with_roster(engine, ask) == Entry("d0", 1, False, None)


@pytest.mark.postgres("connections can be cut off")
def test_a_connection_that_was_cut_off_is_made_anew(engine: Engine) -> None:
    async def ask(roster: Roster) -> Entry | None:
        await roster.find("h0")
        with engine.connect() as connection:
            cut = text(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            assert connection.scalar(cut)
        return await roster.find("h1")

    assert with_roster(engine, ask) == Entry("d1", 2, False, None)


@pytest.mark.postgres("it may be away")
def test_a_database_that_is_away_is_told_to_all_who_ask(engine: Engine) -> None:
    away = open_engine("postgresql://weft@127.0.0.1:1/nothing")

    async def ask(roster: Roster) -> list[Any]:
        asked = (roster.find(f"h{n}") for n in range(3))
        return await asyncio.gather(*asked, return_exceptions=True)

    began = time.monotonic()
    found = with_roster(away, ask)
    assert [getattr(error, "code", error) for error in found] == ["database.unreachable"] * 3
    assert isinstance(found[0], DatabaseError)
    assert time.monotonic() - began < 10
