"""A migrated database, rows to refine, and a supervisor whose children are small real scripts."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from server.db import open_engine, reading, writing
from server.jobs import queue
from server.jobs.settings import JobSettings
from server.jobs.supervisor import Supervisor
from server.settings import Settings
from server.tables import Dataset, Model, Refinement, Version, now

DIGEST = "0" * 64


@pytest.fixture
def settings(tmp_path: Path, databases: Any) -> Settings:
    folder = tmp_path / "server"
    return Settings(data_dir=folder, database_url=databases.url(folder))


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = open_engine(settings.url)
    yield engine
    engine.dispose()


@pytest.fixture
def enqueue(engine: Engine) -> Callable[..., int]:
    """Put a refinement into the queue and return its id."""
    with writing(engine) as session:
        model = Model(name="digits")
        session.add(model)
        session.flush()
        session.add(
            Version(
                model_id=model.id,
                number=1,
                weights_digest=DIGEST,
                blob=DIGEST,
                size_bytes=1,
                schema={},
                schema_digest=DIGEST,
                source="uploaded",
            )
        )
        session.add(Dataset(name="new", uri="new.npz", fingerprint=DIGEST, rows=1, classes=[]))

    def enqueue(state: str = "queued", attempts: int = 0) -> int:
        with writing(engine) as session:
            row = Refinement(
                model_id=1,
                base_version_id=1,
                dataset_id=1,
                method={"id": "ka", "options": {}},
                recipe={},
                state=state,
                attempts=attempts,
            )
            session.add(row)
            session.flush()
            return row.id

    return enqueue


class ScriptWork:
    """Runs a script as the child, in the folder as its only argument."""

    def __init__(self, engine: Engine, script: str) -> None:
        self.engine, self.script = engine, script
        self.error: Exception | None = None

    def prepare(self, refinement_id: int, folder: Path) -> list[str]:
        if self.error is not None:
            raise self.error
        path = folder / "child.py"
        path.write_text(f"import json, os, pathlib, signal, sys, time\n{self.script}")
        return [sys.executable, "-I", "-S", "-u", str(path), str(folder)]

    def finish(self, refinement_id: int, folder: Path) -> None:
        with writing(self.engine) as session:
            row = session.get_one(Refinement, refinement_id)
            if row.state == "running":
                row.state, row.finished_at = "succeeded", now()
                queue.record_event(session, "refinement.succeeded", row)


class Until:
    """Waits for the database to say something, woken by each commit: nothing sleeps."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._changed = engine, threading.Condition()
        event.listen(engine, "commit", self._notify)

    def _notify(self, _connection: object) -> None:
        # The commit itself comes after this call: look again a little later, too.
        with self._changed:
            self._changed.notify_all()

    def __call__(self, refinement_id: int, look: Callable[[Refinement], bool]) -> Refinement:
        with self._changed:
            for _ in range(600):
                row = self._row(refinement_id)
                if look(row):
                    return row
                self._changed.wait(0.05)
        raise AssertionError(f"refinement {refinement_id} stays {row.state}: {row.progress}")

    def _row(self, refinement_id: int) -> Refinement:
        with reading(self._engine) as session:
            return session.get_one(Refinement, refinement_id)


@pytest.fixture
def script_work(engine: Engine) -> Callable[[str], ScriptWork]:
    return lambda script: ScriptWork(engine, script)


@pytest.fixture
def until(engine: Engine) -> Until:
    return Until(engine)


@pytest.fixture
def supervise(settings: Settings, engine: Engine) -> Iterator[Callable[..., Supervisor]]:
    """Start a supervisor of children that run `script`; it is stopped at the end."""
    started: list[Supervisor] = []

    def supervise(script: str | ScriptWork, **jobs: float) -> Supervisor:
        work = ScriptWork(engine, script) if isinstance(script, str) else script
        chosen = JobSettings(**{"nice": 0, "grace": 5.0, "progress_interval": 0, **jobs})
        supervisor = Supervisor(settings, engine, work, chosen)
        started.append(supervisor)
        supervisor.start()
        return supervisor

    yield supervise
    for supervisor in started:
        supervisor.stop()
