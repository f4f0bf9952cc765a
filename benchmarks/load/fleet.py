"""A fleet in a database: the rows that its enrolment would have written, in bulk.

Two models: FLEET, which the devices of rollouts run, and IDLE, of the devices that poll while a
rollout of the others is created. All of them hold version 1 of their model.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import numpy as np
from sqlalchemy import Engine, insert, select

from benchmarks.load.client import token_of
from benchmarks.load.databases import Site
from benchmarks.load.serving import Server
from server.auth import token_hash
from server.db import BATCH_ROWS, open_engine, writing
from server.rollouts.draw import lot_of
from server.tables import Device, DeviceModel, Event, Installation, Json, Run, Version, now
from shared.methods import METHODS
from shared.weights import write_weights
from shared.wire import Capabilities

FLEET, IDLE = "fleet", "idle"

CAPABILITIES = Capabilities(
    agent="0.1.0",
    formats=[1],
    methods={name: method.version for name, method in METHODS.items()},
    coders=["raw/1", "entropy/1", "zstd/1"],
    dtypes=["F32", "F16", "BF16", "I64"],
    free_bytes=1 << 30,
    chain=2,
).model_dump()
ATTRIBUTES = {"gpu": "orin", "line": "3", "site": "north"}


def upload_models(server: Server) -> None:
    """Two versions of each model, and a package from the first to the second."""
    with (
        httpx.Client(base_url=server.url, timeout=60, verify=False) as client,
        tempfile.TemporaryDirectory() as folder,
    ):
        for number, name in enumerate((FLEET, IDLE)):
            _post(client, "/api/v1/models", json={"name": name})
            for version in (1, 2):
                path = Path(folder) / f"{name}-{version}"
                draw = np.random.default_rng(10 * number + version)
                weights = draw.normal(size=(64, 64)).astype(np.float32)
                write_weights(path, {"weight": ("F32", weights)})
                content = {"Content-Type": "application/octet-stream"}
                url = f"/api/v1/models/{name}/versions"
                _post(client, url, content=path.read_bytes(), headers=content)


def _post(client: httpx.Client, url: str, **request: Any) -> None:
    client.post(url, **request).raise_for_status()


def enrol(site: Site, fleet: int, idle: int) -> None:
    """Devices 0 to `fleet` of FLEET, and after them `idle` devices of IDLE."""
    engine = open_engine(site.url)
    digests = _digests(engine)
    for start in range(0, fleet + idle, BATCH_ROWS):
        numbers = range(start, min(start + BATCH_ROWS, fleet + idle))
        rows = [list(found) for found in zip(*_rows(numbers, fleet, digests), strict=True)]
        with writing(engine) as session:
            for table, values in zip((Device, DeviceModel, Run, Event), rows, strict=True):
                session.execute(insert(table), values)
    engine.dispose()


def etag(site: Site) -> str:
    """What a device that has heard of its first generation says."""
    engine = open_engine(site.url)
    with writing(engine) as session:
        epoch = session.scalar(select(Installation.epoch))
    engine.dispose()
    return f'"{epoch}-1"'


def _digests(engine: Engine) -> dict[str, str]:
    with writing(engine) as session:
        first = select(Version).where(Version.number == 1)
        return {v.model.name: v.weights_digest for v in session.scalars(first)}


def _rows(
    numbers: range, fleet: int, digests: dict[str, str]
) -> Iterator[tuple[Json, Json, Json, Json]]:
    enrolled, draw = now() - timedelta(days=1), random.Random(numbers.start)
    for number in numbers:
        device = str(UUID(int=draw.getrandbits(128), version=4))  # random, as real ones are
        model = FLEET if number < fleet else IDLE
        digest = digests[model]
        yield (
            {
                "id": device,
                "name": f"cam-{number:06d}",
                "token_hash": token_hash(token_of(number)),
                "capabilities": CAPABILITIES,
                "attributes": ATTRIBUTES,
                "lot": lot_of(device),
                "last_seen_at": enrolled,
            },
            {
                "device_id": device,
                "model_name": model,
                "weights_digest": digest,
                "slots": [digest],
            },
            {
                "device_id": device,
                "model_name": model,
                "weights_digest": digest,
                "since": enrolled,
            },
            {
                "kind": "device.enrolled",
                "device_id": device,
                "data": {"name": f"cam-{number:06d}", "models": [model]},
            },
        )
