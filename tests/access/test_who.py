"""History tells who did what from where; forwarded headers count from named proxies alone."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from server.api.middleware import GUARDED
from tests.access.conftest import ADMIN, Keys

FORWARDED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}


def newest(client: Any) -> dict[str, Any]:
    return client.get("/api/v1/events?limit=1").json()["items"][0]


def test_each_change_names_its_key_and_address(keys: Keys) -> None:
    client = keys.client(keys.make("anna", "operator"))
    client.post("/api/v1/groups", json={"name": "g", "filter": "id==*"})
    event = newest(keys.admin)
    assert (event["kind"], event["actor"], event["address"]) == (
        "group.created",
        "anna",
        "127.0.0.1",
    )
    found = keys.admin.get("/api/v1/events", params={"filter": "actor==anna"}).json()["items"]
    assert [e["kind"] for e in found] == ["group.created"]
    made = keys.admin.get("/api/v1/events?kind=access").json()["items"]
    assert [(e["kind"], e["actor"]) for e in made] == [("access.key_created", "admin")]


def test_exports_tell_it_too(keys: Keys) -> None:
    keys.client(keys.make("anna", "operator")).post("/api/v1/models", json={"name": "m"})
    lines = keys.admin.get("/api/v1/events/export").text.splitlines()
    assert [json.loads(line)["actor"] for line in lines][-2:] == ["admin", "anna"]
    text = keys.admin.get("/api/v1/events/export?format=csv").text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["actor"], row["address"]) for row in rows[-2:]] == [
        ("admin", "127.0.0.1"),
        ("anna", "127.0.0.1"),
    ]


def test_what_the_server_decides_is_its_own(world: Keys) -> None:
    body = {"model": "own", "version": 2}
    answer = world.client(world.make("anna", "operator")).post("/api/v1/rollouts", json=body)
    assert answer.status_code == 201, answer.text
    about = {"rollout_id": answer.json()["id"]}
    told = {
        event["kind"]: event["actor"]
        for event in world.admin.get("/api/v1/events", params=about).json()["items"]
    }
    assert told["rollout.created"] == "anna"
    assert {who for kind, who in told.items() if kind.startswith("assignment.")} <= {"system"}


@pytest.mark.parametrize(
    ("trusted", "address"),
    [((), "127.0.0.1"), (("192.0.2.0/24",), "127.0.0.1"), (("127.0.0.0/8",), "203.0.113.9")],
)
def test_forwarded_headers_count_from_named_proxies_only(
    serve: Any, trusted: Any, address: str
) -> None:
    server = serve(admin_key=ADMIN, trusted_proxies=trusted)
    headers = {"Authorization": f"Bearer {ADMIN}"}
    made = server.client.post("/api/v1/models", json={"name": "m"}, headers=headers | FORWARDED)
    server.client.headers.update(headers)
    assert newest(server.client)["address"] == address
    over_tls = address != "127.0.0.1"
    assert ("strict-transport-security" in made.headers) == over_tls


def test_limits_are_those_of_the_forwarded_address(serve: Any) -> None:
    server = serve(trusted_proxies=("127.0.0.1",), rate_others=0.01, rate_burst=100)
    get = server.client.get
    statuses = [get("/api/v1/models", headers={"X-Forwarded-For": "1.2.3.4"}) for _ in range(2)]
    assert [answer.status_code for answer in statuses] == [200, 429]
    other = get("/api/v1/models", headers={"X-Forwarded-For": "1.2.3.5"})
    assert other.status_code == 200


@pytest.mark.parametrize("path", ["/api/v1/models", "/docs", "/openapi.json", "/healthz", "/none"])
def test_browsers_are_told_what_no_page_may_do(server: Any, path: str) -> None:
    headers = server.client.get(path).headers
    assert {name.decode() for name, _ in GUARDED} <= headers.keys()
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_the_device_plane_carries_none_of_it(server: Any) -> None:
    headers = server.client.get("/device/v1/desired").headers
    assert not {name.decode() for name, _ in GUARDED} & headers.keys()
