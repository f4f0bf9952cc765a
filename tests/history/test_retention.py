"""Progress is forgotten when it is old; results and who ran what never are."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from server.db import BATCH_ROWS, reading, writing
from server.history import retention
from server.history.events import record
from server.history.retention import (
    PROGRESS,
    expire_deliveries,
    expire_keys,
    expire_progress,
)
from server.history.webhooks import create_webhook
from server.rollouts.states import FINAL, OPEN
from server.tables import Delivery, Event, IdempotencyKey, now

LATER = timedelta(days=91)


def kinds(engine: Engine) -> list[str]:
    with reading(engine) as session:
        return list(session.scalars(select(Event.kind).order_by(Event.id)))


def test_old_progress_goes_and_results_stay(engine: Engine) -> None:
    results = ["assignment.committed", "assignment.failed", "rollout.finished", "device.enrolled"]
    with writing(engine) as session:
        for kind in [*PROGRESS, *results]:
            record(session, kind)
    assert expire_progress(engine, 90) == 0
    assert expire_progress(engine, 0, now() + 100 * LATER) == 0
    assert expire_progress(engine, 90, now() + LATER) == len(PROGRESS)
    assert kinds(engine) == [*results, "history.expired"]
    assert expire_progress(engine, 90, now() + LATER) == 0


def test_every_state_of_an_assignment_is_progress_or_a_result() -> None:
    silent = {"timed_out", "unreached"}  # open, for the device may still come, and yet a result
    assert {f"assignment.{state}" for state in OPEN - silent} <= set(PROGRESS)
    assert not {f"assignment.{state}" for state in FINAL | silent} & set(PROGRESS)


def test_kinds_of_progress_are_kinds_that_the_server_writes(checkout: Path) -> None:
    """A kind that is renamed must be renamed here, too."""
    text = "".join(path.read_text() for path in (checkout / "server").rglob("*.py"))
    written = set(re.findall(r'"((?:assignment|refinement)\.[a-z_]+)"', text))
    states = {f"assignment.{state}" for state in OPEN}
    assert set(PROGRESS) <= written | states


def test_many_rows_go_in_batches(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 10)
    with writing(engine) as session:
        for number in range(25):
            record(session, "assignment.offered" if number % 5 else "assignment.committed")
    assert expire_progress(engine, 1, now() + LATER) == 20
    assert set(kinds(engine)) == {"assignment.committed", "history.expired"}
    assert BATCH_ROWS == 1000


def test_runs_outlive_the_events(fleet: Any) -> None:
    fleet.enrol(fleet.digests[0])
    expire_progress(fleet.server.app.state.engine, 1, now() + LATER)
    assert len(fleet.call("GET", "/api/v1/lineage?model=m&version=1")["items"]) == 1


def test_reports_stay_that_tell_of_results_or_of_what_was_in_use(fleet: Any) -> None:
    device = fleet.enrol(fleet.digests[0])
    fleet.report(device, None, fleet.digests[1], state="idle")  # brought by hand: a run begins
    fleet.report(device, None, fleet.digests[1], state="idle")
    fleet.report(device, None, fleet.digests[1], result="failed_no_change", state="deferred")
    fleet.report(device, None, fleet.digests[1], result="failed_no_change", state="failed")
    expire_progress(fleet.server.app.state.engine, 1, now() + LATER)
    kept = fleet.call("GET", f"/api/v1/devices/{device['device_id']}/reports")["items"]
    assert [row["counter"] for row in kept] == [4, 1]


def test_keys_and_finished_deliveries_go_after_a_while(engine: Engine) -> None:
    with writing(engine) as session:
        create_webhook(session, "https://example.org", None, None)
        for number, finished in enumerate((None, now())):
            row = {"body": "{}", "finished_at": finished}
            session.add(Delivery(webhook_id=1, event_id=number, **row))
        answer = {"request_sha256": "0" * 64, "status": 201, "body": "{}"}
        session.add(IdempotencyKey(key="k", method="POST", path="/x", **answer))
    assert expire_keys(engine) == expire_deliveries(engine) == 0
    assert expire_keys(engine, now() + LATER) == 1
    assert expire_deliveries(engine, now() + LATER) == 1
    with reading(engine) as session:
        assert session.scalar(select(func.count()).select_from(Delivery)) == 1
