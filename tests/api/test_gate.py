"""Who is turned away at the door, over real HTTP; and that others still get in."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from server.api.gate import MAX_PARAMETERS
from tests.device_keys import DeviceKey


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    return answer.status_code, answer.json()["code"]


def test_a_device_that_asks_too_often_is_told_when_to_come_back(serve):
    get = serve(rate_devices=0.01, rate_burst=200).client.get
    one, other = ({"Authorization": f"Bearer {token}"} for token in ("one", "other"))
    path = "/device/v1/desired"
    assert [code(get(path, headers=one))[0] for _ in range(3)] == [401, 401, 429]
    refused = get(path, headers=one)
    assert code(refused) == (429, "request.rate_limited")
    assert 90 <= int(refused.headers["retry-after"]) <= 100
    assert get(path, headers=other).status_code == 401


def test_enrolments_are_limited_by_address(serve):
    post = serve(rate_enrolments=0.01, rate_burst=100).client.post
    request = DeviceKey().enrolment({"name": "cam", "token": "enrol-me-please", "models": {}})
    assert post("/device/v1/enrol", **request).status_code == 201
    assert code(post("/device/v1/enrol", **request)) == (429, "request.rate_limited")


def test_renewals_are_limited_by_address_whatever_token_they_make_up(serve):
    """They ask for none, so another one each time must not be another asker each time."""
    post = serve(rate_enrolments=0.01, rate_burst=100).client.post
    body = {"device_id": "nobody", "counter": 1}
    first, second = (
        post("/device/v1/token", json=body, headers={"Authorization": f"Bearer {n}"})
        for n in range(2)
    )
    assert code(first) == (401, "device.unauthorized")
    assert code(second) == (429, "request.rate_limited")


def test_guessing_the_key_is_limited_and_health_never_is(serve):
    get = serve(rate_others=0.01, rate_burst=200, admin_key="a-real-secret").client.get
    found = [get("/api/v1/models", headers={"Authorization": f"Bearer {n}"}) for n in range(3)]
    assert [answer.status_code for answer in found] == [401, 401, 429]
    assert {get("/healthz").status_code for _ in range(5)} == {200}
    assert {get("/readyz").status_code for _ in range(5)} == {200}


def test_zero_turns_the_limits_off(serve):
    get = serve(rate_others=0, rate_burst=0).client.get
    assert {get("/api/v1/models").status_code for _ in range(30)} == {200}


class Held:
    """A route that answers only when it is let go: requests in work, as many as are wanted."""

    def __init__(self, server: Any, count: int) -> None:
        self.inside = threading.Semaphore(0)
        self.go = threading.Event()
        server.app.add_api_route("/held", self._route)
        self._pool = ThreadPoolExecutor(count)
        self.answers = [
            self._pool.submit(httpx.get, f"{server.url}/held", timeout=60, verify=False)
            for _ in range(count)
        ]
        for _ in range(count):
            assert self.inside.acquire(timeout=30)

    def _route(self) -> None:
        self.inside.release()
        self.go.wait(30)

    def let_go(self) -> None:
        self.go.set()
        assert {answer.result().status_code for answer in self.answers} == {200}
        self._pool.shutdown()


def test_under_overload_polls_are_sent_away_and_others_are_not(serve):
    server = serve(max_in_work=4, poll_interval=100)
    body = {"name": "cam", "token": "enrol-me-please", "models": {}}
    first, other = (DeviceKey().enrolment(body) for _ in range(2))
    device = server.client.post("/device/v1/enrol", **first).json()
    headers = {"Authorization": f"Bearer {device['token']}"}
    held = Held(server, 4)
    try:
        away = [server.client.get("/device/v1/desired", headers=headers) for _ in range(8)]
        assert {code(answer) for answer in away} == {(503, "service.overloaded")}
        waits = {int(answer.headers["retry-after"]) for answer in away}
        assert len(waits) > 2, "all would come back together"
        assert all(50 <= wait <= 150 for wait in waits)
        report = server.client.post("/device/v1/reports", headers=headers, json={})
        assert code(report) == (422, "request.invalid")
        assert server.client.get("/api/v1/models").status_code == 200
        assert server.client.post("/device/v1/enrol", **other).status_code == 201
        assert server.client.get("/healthz").status_code == 200
    finally:
        held.let_go()
    assert server.client.get("/device/v1/desired", headers=headers).status_code == 200
    assert server.app.state.gate.in_work == 0


def test_a_shed_poll_costs_no_database_work(serve):
    server = serve(max_in_work=1)
    held = Held(server, 1)
    connections = server.app.state.engine.pool
    end = time.monotonic() + 30
    while connections.checkedout():  # by the duties, which look around at the start
        assert time.monotonic() < end
        time.sleep(0.01)
    server.app.state.roster = server.app.state.engine = None
    try:
        headers = {"Authorization": "Bearer some-token"}
        answer = server.client.get("/device/v1/desired", headers=headers)
        assert code(answer) == (503, "service.overloaded")
    finally:
        held.let_go()


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("?" + "&".join(["limit=1"] * (MAX_PARAMETERS + 1)), {}, 414),
        ("?cursor=" + "a" * 9000, {}, 414),
        ("", {"X-Long": "a" * 33_000}, 431),
    ],
)
def test_heads_that_are_too_large_are_refused(server, query, headers, status):
    assert code(server.client.get(f"/api/v1/models{query}", headers=headers))[0] == status
