"""POST /packages: it works in the request, but neither blocks others nor works twice."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from server.publish import package_routes
from server.publish.on_demand import one_build

ORDER = {"model": "m", "base": 1, "target": 2, "method": {"id": "ka", "options": {"rank": 1}}}
#: More than the server has threads for its routes.
MANY = 50
URL = "/api/v1/packages"


def build(fleet: Any, key: str | None = None, **changes: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    answer: httpx.Response = fleet.server.client.post(URL, json=ORDER | changes, headers=headers)
    return answer


def wait_until_all_wait(app: Any, requests: int) -> None:
    end = time.monotonic() + 30
    while True:
        builder = getattr(app.state, "package_builder", None)
        if builder is not None and builder.statistics().tasks_waiting == requests:
            return
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was really built."""
    orders: list[object] = []
    real = package_routes.build

    def counted(engine: Any, blobs: Any, order: Any, *more: Any) -> Any:
        orders.append(order)
        return real(engine, blobs, order, *more)

    monkeypatch.setattr(package_routes, "build", counted)
    return orders


def test_others_are_answered_while_a_build_is_under_way(fleet: Any) -> None:
    with ThreadPoolExecutor(MANY) as pool:
        with one_build:
            waiting = [pool.submit(build, fleet, "once") for _ in range(MANY)]
            wait_until_all_wait(fleet.server.app, MANY - 1)
            assert fleet.call("GET", "/healthz")["status"] == "ok"
            assert fleet.call("GET", "/api/v1/packages") == {"items": [], "next": None}
            assert not any(future.done() for future in waiting)
        assert [future.result().status_code for future in waiting] == [201] * MANY


def test_same_key_builds_once(fleet: Any, builds: list[object]) -> None:
    with ThreadPoolExecutor() as pool:
        together = [pool.submit(build, fleet, "once") for _ in range(2)]
        answers = [future.result() for future in together] + [build(fleet, "once")]
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert answers[0].json() == answers[1].json() == answers[2].json()
    assert len(builds) == 1
    other = build(fleet, "once", base=2, target=1)
    assert (other.status_code, other.json()["code"]) == (422, "request.key_reused")
    assert len(builds) == 1
