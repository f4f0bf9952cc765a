"""A key that is held to some models or groups neither sees nor changes what is somebody else's.

All routes of the OpenAPI document are walked, so that a new one is among them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest
from sqlalchemy import select

from server import logs
from server.auth.roles import Principal
from server.db import reading, writing
from server.filters import devices_where
from server.tables import (
    Device,
    DeviceModel,
    DeviceTag,
    Group,
    Model,
    Rollout,
    RolloutGroup,
    Version,
)
from tests.access.conftest import OWNERS, Keys, everything

HELD = {
    "models": {"models": ["own"]},
    "groups": {"groups": ["own-line"]},
    "both": {"models": ["own"], "groups": ["own-line"]},
}

#: By hand: what other people's things are called in addresses.
OTHERS = {
    "model": "zebra",
    "number": "1",
    "dataset": "zebra-data",
    "id": "2",
    "rollout_id": "2",
    "device_id": f"2{'0' * 7}-0000-4000-8000-000000000000",
    "tag": "mine",
    "name": "zebra-line",
    "webhook_id": "1",
    "delivery_id": "1",
    "token_id": "1",
    "row_id": "1",
}

#: By hand: requests that name other people's things in their bodies.
BODIES: dict[str, Any] = {
    "POST /api/v1/models": {"name": "zebra-2"},
    "POST /api/v1/datasets": {"name": "zebra-2", "uri": "/zebra"},
    "POST /api/v1/refinements": {
        "model": "zebra",
        "dataset": "zebra-data",
        "method": {"id": "ka", "options": {}},
    },
    "POST /api/v1/packages": {"model": "zebra", "base": 1, "target": 2, "method": {"id": "xor"}},
    "POST /api/v1/bundles": {"model": "zebra", "version": 2},
    "POST /api/v1/rollouts": {"model": "zebra", "version": 2},
    "POST /api/v1/devices/tags": {"filter": "name==zebra*", "add": ["mine"]},
    "POST /api/v1/groups": {"name": "all", "filter": "id==*"},
    "PATCH /api/v1/groups/{name}": {"filter": "id==*"},
    "PATCH /api/v1/devices/{device_id}": {"name": "mine"},
    "POST /api/v1/webhooks": {"url": "https://hooks.example.org"},
    "POST /api/v1/access/keys": {"name": "more", "role": "admin"},
}

#: What a key that is held to groups may do to a model of somebody else: roll it out to its own.
READS_MODELS = ("/models", "/packages", "/refinements", "/datasets", "/bundles", "/lineage")


REFUSED = {"request.out_of_scope", "request.forbidden"}
#: Refusals that come before anybody's things are looked for.
ELSEWHERE = {"dataset.not_allowed", "request.wrong_type"}


@pytest.fixture(params=list(HELD))
def held(request: Any) -> str:
    return str(request.param)


@pytest.fixture
def client(world: Keys, held: str) -> Any:
    return world.as_("operator", **HELD[held])


def operations(world: Keys) -> Iterator[tuple[str, str]]:
    paths = world.server.client.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        if path.startswith("/api/v1"):
            yield from ((method.upper(), path) for method in methods)


def place(path: str) -> str:
    return re.sub(r"{([^}]*)}", lambda name: OTHERS[name[1]], path)


def test_nothing_of_somebody_else_is_found_or_changed(world: Keys, client: Any, held: str) -> None:
    before = everything(world.engine)
    for method, path in operations(world):
        if "{" not in path and method == "GET":
            continue  # lists, below
        if held == "groups" and path.startswith(tuple(f"/api/v1{p}" for p in READS_MODELS)):
            continue  # seen by all whom no models are given; below
        if held == "groups" and (method, path) == ("POST", "/api/v1/rollouts"):
            continue  # any model to its own devices: below
        if held == "models" and (method, path[:14]) == ("GET", "/api/v1/groups"):
            continue  # filters are everybody's to use; what they find is not
        answer = client.request(method, place(path), json=BODIES.get(f"{method} {path}", {}))
        told = answer.json()
        refused = answer.status_code in (403, 404) or told == {"matched": 0, "changed": 0}
        assert refused or told.get("code") in ELSEWHERE, (method, path, answer.text)
    assert everything(world.engine) == before


def test_a_key_of_groups_changes_no_model(world: Keys) -> None:
    client = world.as_("operator", **HELD["groups"])
    before = everything(world.engine)
    for method, path in operations(world):
        if method != "GET" and path.startswith(tuple(f"/api/v1{p}" for p in READS_MODELS[:4])):
            answer = client.request(method, place(path), json=BODIES.get(f"{method} {path}", {}))
            assert answer.json()["code"] in REFUSED, (method, path)
    assert everything(world.engine) == before


def test_no_list_tells_of_somebody_else(world: Keys, client: Any, held: str) -> None:
    for method, path in operations(world):
        if method != "GET" or "{" in path or path.endswith("/follow"):
            continue
        if held == "groups" and path.startswith(tuple(f"/api/v1{p}" for p in READS_MODELS)):
            continue
        if held == "models" and path == "/api/v1/groups":
            continue
        query = {"dataset": "own-data"} if path.endswith("/lineage") else {}
        answer = client.get(path, params=query)
        assert answer.status_code in (200, 403), (path, answer.text)
        text = answer.text
        if held == "groups" and "/events" in path:  # models are seen
            text = "\n".join(
                json.dumps(event)
                for event in client.get("/api/v1/events").json()["items"]
                if event["device_id"] or event["rollout_id"]
            )
        assert "zebra" not in text, path


def test_what_is_its_own_is_found(world: Keys, client: Any, held: str) -> None:
    for path in ("/models", "/devices", "/packages", "/refinements", "/datasets", "/events"):
        assert "own" in client.get(f"/api/v1{path}").text, path
    members = client.get("/api/v1/groups/zebra-line/devices")
    assert members.status_code == 404 or members.json()["items"] == []
    groups = client.get("/api/v1/groups/own-line").json()
    assert groups["devices"] == 1
    shown = client.get("/api/v1/devices").json()["items"]
    assert [device["name"] for device in shown] == ["own-camera"]
    ran = client.get("/api/v1/lineage", params={"dataset": "own-data"})
    assert ran.status_code == 200
    rollouts = client.get("/api/v1/rollouts").json()["items"]
    assert [rollout["model"] for rollout in rollouts] == (["own"] if held == "models" else [])


@pytest.mark.parametrize("format_", ["jsonl", "csv"])
def test_exports_hold_its_own_only(world: Keys, format_: str) -> None:
    client = world.as_("viewer", models=["own"])
    text = client.get("/api/v1/events/export", params={"format": format_}).text
    assert "own-camera" in text
    assert "zebra" not in text
    with client.stream("GET", "/api/v1/events/follow?since=2020-01-01T00:00:00Z&limit=3") as lines:
        assert "zebra" not in "".join(lines.iter_text())


def test_filters_cannot_ask_about_somebody_else(world: Keys) -> None:
    """A device that runs both models: what it holds of the other one stays untold."""
    mine = f"1{'0' * 7}-0000-4000-8000-000000000000"
    with writing(world.engine) as session:
        session.add(DeviceModel(device_id=mine, model_name="zebra", weights_digest="9" * 64))
    client = world.as_("viewer", models=["own"])
    for text in ("model==zebra", f"digest.zebra=={'9' * 64}", "rollout==2", "version.zebra==1"):
        assert client.get("/api/v1/devices", params={"filter": text}).json()["items"] == [], text
    (shown,) = client.get("/api/v1/devices").json()["items"]
    assert [held["model"] for held in shown["models"]] == ["own"]


def test_a_rollout_of_a_key_reaches_the_devices_of_its_groups_only(world: Keys) -> None:
    with writing(world.engine) as session:
        for device in session.scalars(select(Device)):
            if device.name == "zebra-camera":
                session.add(DeviceModel(device_id=device.id, model_name="own", slots=[]))
    client = world.as_("operator", **HELD["groups"])
    for wanted in (None, "id==*", "name==own*,tags==zebra"):
        body = {"model": "own", "version": 2, "start": False} | (
            {"filter": wanted} if wanted else {}
        )
        made = client.post("/api/v1/rollouts", json=body)
        assert made.status_code == 201, made.text
        assert made.json()["filter"].startswith("group=in=(own-line)")
        with reading(world.engine) as session:
            reached = select(Device.name).where(devices_where(session, made.json()["filter"]))
            assert session.scalars(reached).all() == ["own-camera"]
    listed = client.get("/api/v1/rollouts").json()["items"]
    assert len(listed) == 3
    assert world.as_("viewer", groups=["zebra-line"]).get("/api/v1/rollouts").json()["items"] == []
    both = world.as_("viewer", groups=["own-line", "zebra-line"])
    assert len(both.get("/api/v1/rollouts").json()["items"]) == 3


def test_a_group_that_bounds_a_rollout_cannot_go(world: Keys) -> None:
    client = world.as_("operator", **HELD["groups"])
    body = {"model": "own", "version": 2, "start": False}
    assert client.post("/api/v1/rollouts", json=body).status_code == 201
    assert world.admin.delete("/api/v1/groups/own-line").json()["code"] == "group.in_use"
    renamed = world.admin.patch("/api/v1/groups/own-line", json={"name": "other"})
    assert renamed.json()["code"] == "group.in_use"


def test_a_key_of_groups_tags_its_own_devices_only(world: Keys) -> None:
    client = world.as_("operator", **HELD["groups"])
    tagged = client.post("/api/v1/devices/tags", json={"filter": "id==*", "add": ["canary"]})
    assert tagged.json() == {"matched": 1, "changed": 1}
    with reading(world.engine) as session:
        rows = session.execute(
            select(Device.name)
            .join(DeviceTag, DeviceTag.device_id == Device.id)
            .where(DeviceTag.tag == "canary")
        )
        assert rows.scalars().all() == ["own-camera"]


def test_a_key_of_models_makes_those_models_only(world: Keys) -> None:
    client = world.as_("operator", models=["own", "new"])
    refused = client.post("/api/v1/models", json={"name": "newer"})
    assert (refused.status_code, refused.json()["code"]) == (403, "request.out_of_scope")
    assert client.post("/api/v1/models", json={"name": "new"}).status_code == 201
    with reading(world.engine) as session:
        assert set(session.scalars(select(Model.name))) == {*OWNERS, "new"}


def test_the_same_idempotency_key_of_somebody_else_tells_nothing(world: Keys) -> None:
    again = {"Idempotency-Key": "k"}
    body = {"name": "zebra-3", "filter": "id==*"}
    assert world.admin.post("/api/v1/groups", json=body, headers=again).status_code == 201
    other = world.client(world.make("second", "operator"))
    answer = other.post("/api/v1/groups", json=body, headers=again)
    assert answer.json()["code"] == "group.exists"


def test_figures_of_the_whole_fleet_are_for_keys_held_to_nothing(world: Keys, client: Any) -> None:
    assert client.get("/metrics").json()["code"] == "request.out_of_scope"
    assert "weft_devices_enrolled 2.0" in world.as_("viewer").get("/metrics").text


def test_who_is_held_to_nothing_sees_all(world: Keys) -> None:
    viewer = world.as_("viewer")
    for path in ("/models", "/devices", "/rollouts", "/events", "/datasets", "/groups"):
        assert "zebra" in viewer.get(f"/api/v1{path}").text, path
    with reading(world.engine) as session:
        assert session.scalars(select(RolloutGroup)).all() == []
        assert len(session.scalars(select(Rollout)).all()) == 2


def test_what_a_bound_key_releases_leaves_what_others_are_rolling_out(world: Keys) -> None:
    """The list of released versions is everybody's, though only some of its rollouts are seen."""
    trust = world.server.app.state.trust
    third = {"number": 3, "weights_digest": "13" * 32, "blob": "13" * 32, "size_bytes": 1}
    with writing(world.engine) as session:
        (second,) = session.scalars(select(Version).where(Version.weights_digest == "12" * 32))
        same = {name: getattr(second, name) for name in ("model_id", "schema", "schema_digest")}
        session.add(Version(**same, **third, source="uploaded"))
        trust.release(session, second)
        group = session.scalar(select(Group.id).where(Group.name == "own-line"))

    def release() -> None:
        logs.begin(logs.Trace("test"))
        logs.acts("line", Principal("line", "operator", groups=(group or 0,)))
        with writing(world.engine) as session:
            (newest,) = session.scalars(select(Version).where(Version.weights_digest == "13" * 32))
            trust.release(session, newest, keep=1)

    copy_context().run(release)
    with reading(world.engine) as session:
        released = select(Version.number).where(Version.released_at.is_not(None))
        assert session.scalars(released.order_by(Version.number)).all() == [2, 3]


def test_rollouts_of_others_notice_what_a_bound_key_changes(world: Keys) -> None:
    """A device that a key of groups tags joins the rollout that asks for the tag, unseen by it."""
    body = {"model": "own", "version": 2, "filter": "tags==canary"}
    rollout = world.admin.post("/api/v1/rollouts", json=body).json()["id"]
    where = f"/api/v1/rollouts/{rollout}"
    assert world.admin.get(where).json()["devices"] == 0
    client = world.as_("operator", **HELD["groups"])
    (device,) = client.get("/api/v1/devices").json()["items"]
    assert client.put(f"/api/v1/devices/{device['id']}/tags/canary").status_code == 200
    assert world.admin.get(where).json()["devices"] == 1
    assert client.get(where).status_code == 404
