"""A server that asks for keys, and two owners' things on it.

All that is somebody else's has `zebra` in its name, so that no answer may hold that word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, func, select

from server.db import reading, writing
from server.history.events import record
from server.tables import (
    Assignment,
    Base,
    Dataset,
    Device,
    DeviceModel,
    DeviceTag,
    Group,
    Model,
    Package,
    Refinement,
    Rollout,
    Run,
    Version,
)

ADMIN = "the-admin-key-of-this-test"
OWNERS = ("own", "zebra")


class Keys:
    """A server and its keys; `as_` gives a client that shows one."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.engine: Engine = server.app.state.engine
        self._clients: list[httpx.Client] = []

    def client(self, key: str | None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._clients.append(
            httpx.Client(base_url=self.server.url, headers=headers, verify=False, timeout=30)
        )
        return self._clients[-1]

    @property
    def admin(self) -> httpx.Client:
        return self.client(ADMIN)

    def make(self, name: str, role: str, **more: Any) -> str:
        """The text of a new key."""
        body = {"name": name, "role": role} | more
        answer = self.admin.post("/api/v1/access/keys", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["key"])

    def as_(self, role: str, **held: Any) -> httpx.Client:
        name = "-".join([f"some-{role}", *(f"{k}.{'.'.join(v)}" for k, v in held.items())])
        return self.client(self.make(name, role, **held))

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture
def keys(serve: Callable[..., Any]) -> Any:
    keys = Keys(serve(admin_key=ADMIN, rate_others=0))
    yield keys
    keys.close()


@pytest.fixture
def world(keys: Keys) -> Keys:
    """What `own` and `zebra` have, each the same."""
    with writing(keys.engine) as session:
        for number, owner in enumerate(OWNERS, 1):
            _own(session, owner, number)
    return keys


def _own(session: Any, owner: str, number: int) -> None:
    """A model with two versions, a dataset, a refinement, a package, a device, a rollout."""
    model = Model(name=owner, schema={}, schema_digest="0" * 64)
    group = Group(name=f"{owner}-line", filter=f"tags=={owner}")
    data = Dataset(name=f"{owner}-data", uri=f"/{owner}", fingerprint="f" * 64, rows=1, classes=[])
    device = Device(
        id=f"{number}{'0' * 7}-0000-4000-8000-000000000000",
        name=f"{owner}-camera",
        token_hash=f"{number}" * 64,
    )
    session.add_all([model, group, data, device])
    session.flush()
    versions = [
        Version(
            model_id=model.id,
            number=n,
            weights_digest=f"{number}{n}" * 32,
            blob=f"{number}{n}" * 32,
            size_bytes=1,
            schema={},
            schema_digest="0" * 64,
            source="uploaded",
        )
        for n in (1, 2)
    ]
    session.add_all([*versions, DeviceTag(device_id=device.id, tag=owner)])
    session.flush()
    first, second = versions
    refinement = Refinement(
        model_id=model.id,
        base_version_id=first.id,
        dataset_id=data.id,
        method={"id": "ka", "options": {}},
        recipe={},
        state="succeeded",
        target_version_id=second.id,
    )
    package = Package(
        model_id=model.id,
        base_version_id=first.id,
        target_version_id=second.id,
        method="xor",
        sha256=f"{number}a" * 32,
        size_bytes=1,
        state="published",
    )
    rollout = Rollout(model_id=model.id, version_id=second.id, state="paused")
    session.add_all([refinement, package, rollout])
    held = {"device_id": device.id, "model_name": owner, "weights_digest": first.weights_digest}
    session.add(DeviceModel(**held, slots=[]))
    session.add(Run(**held, since=device.created_at))
    session.flush()
    session.add(Assignment(rollout_id=rollout.id, device_id=device.id, model_id=model.id))
    record(session, "device.enrolled", {"name": device.name}, device_id=device.id)
    record(session, "model.created", {"name": owner}, model_id=model.id)
    record(session, "dataset.created", {"name": data.name})
    record(session, "group.created", {"name": group.name})
    about = {"model_id": model.id, "rollout_id": rollout.id, "version_id": second.id}
    record(session, "rollout.created", {"by": owner}, **about)
    record(session, "assignment.idle", {"by": owner}, device_id=device.id, **about)


#: What changes by being let in at all, and what tells of what was refused.
PASSING = frozenset({"api_keys", "leases"})


def everything(engine: Engine) -> dict[str, list[Any]]:
    """All rows of all tables."""
    with reading(engine) as session:
        return {
            table.name: sorted(map(repr, session.execute(select(table)).all()))
            for table in Base.metadata.sorted_tables
            if table.name not in PASSING
        }


def count(engine: Engine, table: Any) -> int:
    with reading(engine) as session:
        return session.scalar(select(func.count()).select_from(table)) or 0
