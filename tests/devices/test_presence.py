"""Sightings of devices: kept, written in batches, in nobody's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, insert, select, update

from server.db import open_engine, reading, writing
from server.devices import presence as presence_module
from server.devices.presence import Presence
from server.tables import Device, now


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


def enrol(engine: Engine, count: int) -> list[str]:
    ids = [f"device-{number}" for number in range(count)]
    with writing(engine) as session:
        rows = [{"id": i, "name": i, "token_hash": f"hash of {i}"} for i in ids]
        session.execute(insert(Device), rows)
    return ids


def stored(engine: Engine) -> dict[str, object]:
    with reading(engine) as session:
        return dict(session.execute(select(Device.id, Device.last_seen_at)).all())


def test_a_sighting_is_known_at_once_and_written_later(engine: Engine) -> None:
    first, second = enrol(engine, 2)
    presence, before = Presence(engine), now()
    presence.saw(first)
    seen = presence.last_seen(first, None)
    assert seen is not None
    assert abs((seen - before).total_seconds()) < 5
    assert stored(engine) == {first: None, second: None}
    presence.flush()
    written = stored(engine)
    assert abs((written[first] - seen).total_seconds()) < 0.002
    assert written[second] is None
    assert presence.last_seen(first, written[first]) == written[first]  # nothing is kept here


def test_a_later_sighting_replaces_one_that_is_stored(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (device,) = enrol(engine, 1)
    presence = Presence(engine)
    presence.saw(device)
    presence.flush()
    before = stored(engine)[device]
    later = time.time() + 1
    monkeypatch.setattr(presence_module.time, "time", lambda: later)
    presence.saw(device)
    presence.flush()
    assert stored(engine)[device] > before


def test_a_device_that_is_gone_is_nothing_to_write(engine: Engine) -> None:
    (device,) = enrol(engine, 1)
    presence = Presence(engine)
    presence.saw("gone")
    presence.saw(device)
    presence.flush()
    assert stored(engine)[device] is not None


def test_a_writer_gets_its_turn_between_batches(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = enrol(engine, 40)
    presence = Presence(engine)
    for device in devices:
        presence.saw(device)
    monkeypatch.setattr(presence_module, "BATCH_ROWS", 4)
    flushing = threading.Thread(target=presence.flush)
    flushing.start()
    with writing(engine) as session:
        session.execute(update(Device).where(Device.id == devices[0]).values(name="renamed"))
    assert flushing.is_alive()  # the writer did not wait for all of them
    flushing.join()
    assert None not in stored(engine).values()


@pytest.mark.postgres("rows are locked one by one")
def test_a_row_that_another_holds_is_written_the_next_time(engine: Engine) -> None:
    held, free = enrol(engine, 2)
    presence = Presence(engine)
    presence.saw(held)
    presence.saw(free)
    with writing(engine, alone=False) as session:
        session.execute(update(Device).where(Device.id == held).values(name="renamed"))
        presence.flush()
        assert (stored(engine)[held], stored(engine)[free] is None) == (None, False)
        assert presence.last_seen(held, None) is not None
    presence.flush()
    assert stored(engine)[held] is not None


@pytest.mark.postgres("only there is it told which rows were written")
def test_what_cannot_be_written_is_kept_and_then_forgotten(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    presence = Presence(engine)
    presence.saw("gone")
    presence.flush()
    assert presence.last_seen("gone", None) is not None
    monkeypatch.setattr(presence_module, "FORGET_SECONDS", -1.0)
    presence.flush()
    assert presence.last_seen("gone", None) is None
