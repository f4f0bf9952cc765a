"""A small fleet in a real database, whose clock the test holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from server.db import open_engine, reading, writing
from server.devices.desired import Answer, answer_poll
from server.devices.enrolment import enrol
from server.devices.presence import Presence
from server.devices.reports import take_report
from server.planner.offers import Planning, Published
from server.publish.release import require_released
from server.rollouts.deploy import create_rollout
from server.rollouts.evaluation import evaluate_due
from server.settings import load_settings
from server.tables import Assignment, Event, Model, Rollout, Version
from server.trust.keyring import Keyring
from server.trust.repository import Trust
from shared.wire import Enrolment, Report
from tests.device_keys import DeviceKey

TOKEN = "for-the-yard"
CLOCKED = (
    "server.devices.desired.now",
    "server.rollouts.deploy.now",
    "server.rollouts.evaluation.now",
    "server.rollouts.reports.now",
)


class Yard:
    """A model with three released versions; devices hold all of them, so nothing is sent.

    So nothing has to be listed, and no keys are needed.
    """

    def __init__(self, url: str) -> None:
        self.engine: Engine = open_engine(url)
        self.at = datetime(2026, 3, 2, 12, tzinfo=UTC)
        self._counters: dict[str, int] = {}
        self._keys: dict[str, DeviceKey] = {}
        self._presence = Presence(self.engine)
        self._settings = load_settings(enrolment_token=TOKEN)
        self._planning = Planning(Published())
        self._trust = Trust(self.engine, Keyring(Path("no keys")))
        self.release = partial(require_released, self._trust, False)
        with writing(self.engine) as session:
            session.add(Model(name="m"))
            session.flush()
            for number in (1, 2, 3):
                digest = str(number) * 64
                same = {"blob": digest, "size_bytes": 1, "schema": {}, "schema_digest": ""}
                version = Version(model_id=1, number=number, weights_digest=digest, **same)
                version.source, version.released_at = "uploaded", self.at
                session.add(version)

    def now(self) -> datetime:
        return self.at

    def wait(self, seconds: float) -> None:
        """Let time pass, and the duty have its turns: one ends early where the machine is busy."""
        self.at += timedelta(seconds=seconds)
        due = select(Rollout.id).where(Rollout.due_at <= self.at).limit(1)
        is_done = False
        while not is_done:
            evaluate_due(self.engine, self.at)
            with reading(self.engine) as session:
                is_done = session.scalar(due) is None

    def enrol(self, current: int = 1, **attributes: str) -> str:
        slots = [str(n) * 64 for n in (1, 2, 3)]
        held = {"m": {"slots": slots, "current": str(current) * 64}}
        key, said = DeviceKey(), {"name": "d", "token": TOKEN, "models": held}
        said |= {"key": key.public, "attributes": attributes}
        asked, raw = Enrolment.model_validate(said), json.dumps(said).encode()
        signature = key.sign("enrol", "", raw)
        with writing(self.engine) as session:
            given = enrol(session, self._settings, self._presence, asked, raw, signature)
        self._keys[given.device_id] = key
        return given.device_id

    def roll_out(self, version: int = 2, start: bool = True, **body: Any) -> int:
        row = {"phases": [{"percent": 100, "soak_seconds": 0}], "success_percent": 90.0} | body
        with writing(self.engine) as session:
            rollout = Rollout(model_id=1, version_id=version, **row)
            create_rollout(session, rollout, {}, start, self.release)
            return rollout.id

    def poll(self, device: str) -> Answer:
        return answer_poll(self.engine, device, self._planning, self._trust)

    def report(self, device: str, assignment: int, held: int, **changes: Any) -> None:
        self._counters[device] = counter = self._counters.get(device, 0) + 1
        digest = str(held) * 64
        slots = [str(n) * 64 for n in (1, 2, 3)]
        body = {"counter": counter, "model": "m", "assignment": assignment, "slots": slots}
        body |= {"result": "committed", "state": "committed", "weights_digest": digest} | changes
        raw = json.dumps(body).encode()
        signature = self._keys[device].sign("report", device, raw)
        with writing(self.engine) as session:
            refused = take_report(session, device, raw, Report.model_validate(body), signature)
        assert refused is None

    def succeed(self, device: str) -> None:
        """Poll, and do what is offered."""
        (offer,) = self.poll(device).desired.models
        assert offer.held is None
        self.report(device, offer.assignment or 0, offer.version)

    def fail(self, device: str) -> None:
        """Poll, and roll back what is offered."""
        (offer,) = self.poll(device).desired.models
        gone = {"result": "failed_rolled_back", "state": "rolled_back"}
        self.report(device, offer.assignment or 0, 1, **gone)

    def rollout(self, rollout_id: int) -> Rollout:
        with reading(self.engine) as session:
            return session.get_one(Rollout, rollout_id)

    def states(self, rollout_id: int) -> dict[str, str]:
        """Device -> state, in the order of admission."""
        mine = select(Assignment.device_id, Assignment.state).order_by(Assignment.id)
        with reading(self.engine) as session:
            rows = session.execute(mine.where(Assignment.rollout_id == rollout_id))
            return dict(rows.all())

    def kinds(self, rollout_id: int) -> list[str]:
        mine = select(Event.kind).where(Event.rollout_id == rollout_id)
        with reading(self.engine) as session:
            kinds = session.scalars(mine.order_by(Event.transaction, Event.id))
            return [kind for kind in kinds if kind.startswith("rollout.")]


@pytest.fixture
def yard(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    found = Yard(database_url)
    for name in CLOCKED:
        monkeypatch.setattr(name, found.now)
    yield found
    found.engine.dispose()
