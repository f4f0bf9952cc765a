"""`weft worker`: runs refinements beside servers that run none, and takes over from dead ones."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sqlalchemy import Engine, select

from server import zoo
from server.db import reading
from server.refine.weights import save_state, state_of
from server.tables import Event, Refinement

pytestmark = pytest.mark.postgres("SQLite serves one process")

LOST_AFTER = "4"
#: Else tests that run beside this one starve the training.
NICE = "0"
EPOCHS = 60


@pytest.fixture
def queued(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server that runs no refinements, and a long one in its queue: the server's client."""
    monkeypatch.setenv("WEFT_JOBS_AT_ONCE", "0")
    client = serve(dataset_roots=(str(tmp_path),)).client
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (96, 16, 16), np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(96) % 5)
    torch.manual_seed(0)
    arguments = {"in_channels": 1, "classes": 5}
    save_state(tmp_path / "base", state_of(zoo.get("vgg_tiny").build(arguments)))
    model = {"name": "m", "architecture": "vgg_tiny", "arguments": arguments}
    client.post("/api/v1/models", json=model).raise_for_status()
    octets = {"Content-Type": "application/octet-stream"}
    content = (tmp_path / "base").read_bytes()
    client.post("/api/v1/models/m/versions", content=content, headers=octets).raise_for_status()
    data = {"name": "d", "uri": str(tmp_path / "images.npz")}
    client.post("/api/v1/datasets", json=data).raise_for_status()
    order = {
        "model": "m",
        "base": 1,
        "dataset": "d",
        "method": {"id": "ka", "options": {"rank": 1}},
        "recipe": {"epochs": EPOCHS, "threads": 1},
    }
    client.post("/api/v1/refinements", json=order).raise_for_status()
    return client


def test_a_worker_that_is_killed_is_followed_by_another(
    queued: Any, start: Any, wait_for: Any, engine: Engine, tmp_path: Path
) -> None:
    settings = {
        "WEFT_JOBS_LOST_AFTER": LOST_AFTER,
        "WEFT_JOBS_NICE": NICE,
        "WEFT_JOBS_PROGRESS_INTERVAL": "0",  # every epoch can be seen, however short
    }
    roots = {"WEFT_DATASET_ROOTS": str(tmp_path)}  # workers go by their own
    workers = [start("worker", **settings, **roots) for _ in range(2)]
    by_name = {worker.said["worker"]: worker for worker in workers}

    def shown() -> Any:
        return queued.get("/api/v1/refinements/1").raise_for_status().json()

    def epoch() -> int:
        return (shown()["progress"] or {}).get("epoch") or 0

    wait_for("some epochs", lambda: epoch() >= 3)
    with reading(engine) as session:
        first = session.get_one(Refinement, 1).worker
    by_name.pop(first).end(signal.SIGKILL)
    done = epoch()
    [(second, survivor)] = by_name.items()
    goes_on = wait_for("the other worker", lambda: shown()["attempts"] == 2 and epoch())
    assert goes_on >= done  # from its checkpoint, not from the beginning
    wait_for("its end", lambda: shown()["state"] not in ("queued", "running"))
    found = shown()
    assert (found["state"], found["target"]) == ("succeeded", 2), found
    with reading(engine) as session:
        assert session.get_one(Refinement, 1).worker == second
        kinds = list(session.scalars(select(Event.kind).where(Event.refinement_id == 1)))
    assert kinds.count("refinement.started") == 2
    assert kinds.count("refinement.interrupted") == 1
    assert kinds.count("refinement.succeeded") == 1
    assert survivor.end() == 0
    assert "Traceback" not in survivor.log.read_text()


def test_a_worker_asked_to_end_queues_what_it_runs(
    queued: Any, start: Any, wait_for: Any, tmp_path: Path
) -> None:
    worker = start("worker", WEFT_DATASET_ROOTS=str(tmp_path))
    assert worker.said["at_once"] == 1

    def shown() -> Any:
        return queued.get("/api/v1/refinements/1").raise_for_status().json()

    wait_for("its start", lambda: shown()["state"] == "running")
    assert worker.end() == 0
    assert (shown()["state"], shown()["attempts"]) == ("queued", 0)
