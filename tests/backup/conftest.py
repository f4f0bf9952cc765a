"""A database with something in every table that matters, its blobs, and places to restore to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from server.db import migrate, open_engine, writing
from server.storage.local import LocalStore
from server.tables import (
    Assignment,
    Dataset,
    Device,
    DeviceModel,
    Event,
    Lease,
    Model,
    Package,
    Refinement,
    Rollout,
    Version,
    now,
)
from tests.bucket import s3, s3_process

__all__ = ["s3", "s3_process"]

WEIGHTS = [b"first weights" * 1000, b"second weights" * 1000]
PACKAGE = b"a package" * 100
STATISTICS = b"unfolded statistics"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def keep(store: Any, *contents: bytes) -> None:
    for data in contents:
        with store.receive() as incoming:
            incoming.write(data)
            incoming.keep()


def fill(engine: Engine) -> None:
    """One of each, in the middle of things."""
    with writing(engine) as session:
        session.add(Model(name="m", schema={"w": {"dtype": "F32", "shape": [1]}}))
        session.flush()
        for number, data in enumerate(WEIGHTS, 1):
            beside = {"statistics_blob": sha(STATISTICS)} if number == 2 else {}
            session.add(
                Version(
                    model_id=1,
                    number=number,
                    weights_digest=sha(data),
                    blob=sha(data),
                    size_bytes=len(data),
                    schema={},
                    schema_digest=sha(b""),
                    source="uploaded",
                    parent_id=number - 1 or None,
                    metrics={"accuracy": 0.1 + 0.2, **beside},
                )
            )
            session.flush()
        session.add(
            Version(
                model_id=1,
                number=3,
                weights_digest=sha(b"3"),
                blob=sha(b"removed by retention"),
                size_bytes=1,
                schema={},
                schema_digest=sha(b""),
                source="uploaded",
                removed_at=now(),
            )
        )
        session.add(Dataset(name="d", uri="/d", fingerprint=sha(b""), rows=1, classes=["ä", "b"]))
        session.flush()
        session.add(
            Package(
                model_id=1,
                base_version_id=1,
                target_version_id=2,
                method="xor",
                sha256=sha(PACKAGE),
                size_bytes=len(PACKAGE),
                state="published",
            )
        )
        session.add(
            Refinement(
                model_id=1,
                base_version_id=1,
                dataset_id=1,
                method={"id": "ka"},
                recipe={},
                state="running",
                worker="a process that is gone",
                heartbeat_at=now(),
            )
        )
        session.add(Device(id="d-1", name="lamp", token_hash=sha(b"t"), generation=7))
        session.add(Device(id="d-2", name="owl", token_hash=sha(b"u"), capabilities={"x": [1]}))
        session.flush()
        for device in ("d-1", "d-2"):
            held = DeviceModel(device_id=device, model_name="m", weights_digest=sha(WEIGHTS[0]))
            session.add(held)
        session.add(Rollout(model_id=1, version_id=2, phases=[{"percent": 100}], max_open=5))
        session.flush()
        session.add(
            Assignment(
                rollout_id=1, device_id="d-1", model_id=1, state="committed", finished_at=now()
            )
        )
        session.add(
            Assignment(
                rollout_id=1,
                device_id="d-2",
                model_id=1,
                state="offered",
                package_id=1,
                offered_at=now(),
            )
        )
        session.add(Event(kind="device.enrolled", device_id="d-1", data={"name": "lamp"}))
        session.add(Lease(name="rollouts", holder="a server", until=now()))


@pytest.fixture
def open_database() -> Iterator[Callable[[str], Engine]]:
    """Engines by URL; closed at the end."""
    opened: list[Engine] = []

    def open_it(url: str) -> Engine:
        opened.append(open_engine(url))
        return opened[-1]

    yield open_it
    for engine in opened:
        engine.dispose()


@pytest.fixture
def engine(database_url: str, open_database: Callable[[str], Engine]) -> Engine:
    """The database that is backed up, of the kind that the tests run on."""
    engine = open_database(database_url)
    fill(engine)
    return engine


@pytest.fixture
def blobs(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "store")
    keep(store, *WEIGHTS, PACKAGE, STATISTICS)
    return store


@pytest.fixture
def sqlite(tmp_path: Path, open_database: Callable[[str], Engine]) -> Engine:
    """An empty, migrated SQLite database."""
    url = f"sqlite:///{tmp_path / 'restored' / 'weft.db'}"
    (tmp_path / "restored").mkdir()
    migrate(url)
    return open_database(url)


@pytest.fixture
def empty(databases: Any, tmp_path: Path, open_database: Callable[[str], Engine]) -> Engine:
    """An empty, migrated database of the kind that the tests run on."""
    return open_database(databases.url(tmp_path / "empty"))
