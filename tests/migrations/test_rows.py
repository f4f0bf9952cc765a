"""Migrations with rows present, up and down and up again: nothing is lost but what they drop."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, table, text
from sqlalchemy.sql import column

from server.db import downgrade, migrate, open_engine, reading, writing
from server.tables import Assignment, Device, Event, Installation, Rollout, Run

DIGEST = "ab" * 32
MOMENT = "2026-01-02 03:04:05+00:00"

#: As the first release wrote them: table -> rows.
FIRST: dict[str, list[dict[str, Any]]] = {
    "models": [{"id": 1, "name": "m", "arguments": "{}", "buffers": "[]", "created_at": MOMENT}],
    "versions": [
        {
            "id": number,
            "model_id": 1,
            "number": number,
            "weights_digest": str(number) * 64,
            "blob": DIGEST,
            "size_bytes": 5_000_000_000,
            "schema": "{}",
            "schema_digest": DIGEST,
            "source": "uploaded",
            "metrics": "{}",
            "created_at": MOMENT,
        }
        for number in (1, 2)
    ],
    "devices": [
        {
            "id": name,
            "name": name,
            "token_hash": name,
            "generation": 3,
            "report_counter": 2,
            "capabilities": "{}",
            "created_at": MOMENT,
        }
        for name in ("camera-1", "camera-2")
    ],
    "device_models": [
        {
            "device_id": "camera-1",
            "model_name": "m",
            "weights_digest": "1" * 64,
            "slots": "[]",
            "state": "idle",
            "health": "ok",
        },
        {
            "device_id": "camera-2",
            "model_name": "m",
            "slots": "[]",
            "state": "idle",
            "health": "unverified",
        },
    ],
    "rollouts": [
        {"id": 1, "model_id": 1, "version_id": 2, "state": "active", "created_at": MOMENT}
    ],
    "assignments": [
        {
            "id": 1,
            "rollout_id": 1,
            "device_id": "camera-1",
            "model_id": 1,
            "state": "idle",
            "created_at": MOMENT,
        }
    ],
    "events": [{"at": MOMENT, "kind": "rollout.created", "rollout_id": 1, "data": '{"n": 1}'}],
}


@pytest.fixture
def engine(empty_database_url: str) -> Iterator[Engine]:
    migrate(empty_database_url, "0001")
    engine = open_engine(empty_database_url)
    with writing(engine) as session:
        for name, rows in FIRST.items():
            for row in rows:
                _insert(session, name, row)
    yield engine
    engine.dispose()


def _insert(session: Any, name: str, row: dict[str, Any]) -> None:
    """By text, as SQL has it: the tables of the code are those of the newest revision."""
    values = {n: text(str(v) if isinstance(v, int) else f"'{v}'") for n, v in row.items()}
    session.execute(insert(table(name, *(column(n) for n in row))).values(values))


def _old_rows(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """What the first release's columns say now."""
    with reading(engine) as session:
        return {
            name: [
                tuple(row)
                for row in session.execute(
                    select(*(column(n) for n in rows[0]))
                    .select_from(text(name))
                    .order_by(text("1"))
                )
            ]
            for name, rows in FIRST.items()
        }


def test_rows_of_the_first_release_stay_through_up_down_and_up(
    engine: Engine, empty_database_url: str
) -> None:
    before = _old_rows(engine)
    migrate(empty_database_url)
    assert _old_rows(engine) == before
    downgrade(empty_database_url, "0001")
    assert _old_rows(engine) == before
    migrate(empty_database_url)
    assert _old_rows(engine) == before


def test_old_rows_have_what_the_new_code_expects(engine: Engine, empty_database_url: str) -> None:
    migrate(empty_database_url)
    with reading(engine) as session:
        rollout = session.get_one(Rollout, 1)
        assert rollout.phases == [{"percent": 100, "soak_seconds": 0}]
        assert (rollout.success_percent, rollout.abort_rules, rollout.rollback) == (100, [], False)
        assert rollout.started_at == rollout.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        device = session.get_one(Device, "camera-1")
        lot = int.from_bytes(hashlib.sha256(b"camera-1").digest()[:4], "big") >> 1
        assert (device.lot, device.attributes, device.failures) == (lot, {}, 0)
        [run] = session.scalars(select(Run))
        assert (run.device_id, run.weights_digest, run.until) == ("camera-1", "1" * 64, None)
        assert session.get_one(Assignment, 1).attempts == 1
        assert session.get_one(Event, 1).transaction == 0
        assert len(session.get_one(Installation, 1).epoch) == 8


def test_new_rows_follow_the_old_ones(engine: Engine, empty_database_url: str) -> None:
    migrate(empty_database_url)
    with writing(engine) as session:
        session.add(Event(kind="device.enrolled"))
    with reading(engine) as session:
        kinds = list(session.scalars(select(Event.kind).order_by(Event.transaction, Event.id)))
    assert kinds == ["rollout.created", "device.enrolled"]
