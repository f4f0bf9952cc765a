"""A small fleet in a real database, and the same fleet as plain data."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from server.db import open_engine, writing
from server.tables import (
    Assignment,
    Device,
    DeviceModel,
    DeviceTag,
    Model,
    Rollout,
    Version,
    now,
)

#: What devices draw their values from: letters of both cases, signs of patterns, numbers.
TAGS = ("line3", "LINE3", "a b", "50%", "x_y", "[z]", "st*r")
ATTRIBUTES = {
    "gpu": ("orin", "Orin", "none", "a_b"),
    "ram": ("4096", "512", "8e3", "-1.5", "many", "", "007", "12 "),
}
DIGESTS = ("1" * 64, "2" * 64, "f" * 64)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def devices(engine: Engine) -> list[dict[str, Any]]:
    """Forty devices, each as field -> its values; field `id` has the only sure one."""
    draw = random.Random(7)
    told = []
    with writing(engine) as session:
        models = [Model(name=name) for name in ("m", "other.1")]
        session.add_all(models)
        session.flush()
        for model in models:
            for number, digest in enumerate(DIGESTS[:2], 1):
                session.add(_version(model, number, digest))
        session.flush()
        session.add(Rollout(model_id=models[0].id, version_id=1, phases=[], abort_rules=[]))
        session.flush()
        for number in range(40):
            told.append(_add_device(session, draw, f"d{number:02}", models))
            session.flush()
    return told


def _version(model: Model, number: int, digest: str) -> Version:
    return Version(
        model_id=model.id,
        number=number,
        weights_digest=digest,
        blob=digest,
        size_bytes=1,
        schema={},
        schema_digest=digest,
        source="uploaded",
    )


def _add_device(session: Any, draw: random.Random, id_: str, models: list[Model]) -> dict[str, Any]:
    tags = draw.sample(TAGS, draw.randrange(3))
    attributes = {name: draw.choice(of) for name, of in ATTRIBUTES.items() if draw.random() < 0.8}
    seen = now() - timedelta(days=draw.randrange(20)) if draw.random() < 0.9 else None
    agent, failures = draw.choice(["0.1.0", "0.2.0"]), draw.randrange(4)
    device = Device(
        id=id_,
        name=draw.choice(["cam", "Cam", "camera"]),
        token_hash=id_,
        attributes=attributes,
        capabilities={"agent": agent} if failures else {},
        failures=failures,
        last_seen_at=seen,
    )
    session.add(device)
    session.flush()
    session.add_all(DeviceTag(device_id=id_, tag=tag) for tag in tags)
    told: dict[str, Any] = {
        "id": [id_],
        "name": [device.name],
        "tags": tags,
        "tag": tags,
        "agent": [agent] if failures else [],
        "failures": [failures],
        "last_seen": [seen] if seen else [],
        "model": [],
        "rollout": [],
    } | {f"attr.{name}": [value] for name, value in attributes.items()}
    for model in models:
        if draw.random() < 0.6:
            _hold(session, draw, device, model, told)
    if draw.random() < 0.5:
        _assign(session, draw, device, models[0], told)
    return told


def _hold(
    session: Any, draw: random.Random, device: Device, model: Model, told: dict[str, Any]
) -> None:
    digest = draw.choice([*DIGESTS, None])
    health = draw.choice(["passed", "unverified"])
    session.add(
        DeviceModel(
            device_id=device.id, model_name=model.name, weights_digest=digest, health=health
        )
    )
    told["model"].append(model.name)
    told[f"digest.{model.name}"] = [digest] if digest else []
    told[f"health.{model.name}"] = [health]
    told[f"state.{model.name}"] = ["idle"]
    known = digest in DIGESTS[:2]
    told[f"version.{model.name}"] = [DIGESTS.index(digest) + 1] if known else []


def _assign(
    session: Any, draw: random.Random, device: Device, model: Model, told: dict[str, Any]
) -> None:
    is_open, held = draw.random() < 0.5, draw.choice(["over_budget", None])
    session.add(
        Assignment(
            rollout_id=1,
            device_id=device.id,
            model_id=model.id,
            state="offered",
            held=held,
            finished_at=None if is_open else now(),
        )
    )
    told["rollout"].append(1)
    if is_open:
        told[f"assignment.{model.name}"] = ["offered"]
        told[f"held.{model.name}"] = [held] if held else []
