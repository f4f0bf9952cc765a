"""The penalty box: devices whose updates failed so often in a row that rollouts leave them out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from server.db import writing
from server.tables import Assignment
from tests.conftest import Fleet

GONE = {"result": "failed_rolled_back", "state": "rolled_back"}


@pytest.fixture
def boxing(serve: Any, weights_file: Callable[..., Path]) -> Fleet:
    """A fleet whose devices are left out after two failures, and its model's three versions."""
    files = [weights_file(seed) for seed in (0, 1, 2)]
    fleet = Fleet(serve(penalty_after=2), files)
    fleet.publish(1, 2, b"two")
    fleet.publish(1, 3, b"three")
    return fleet


def start(fleet: Fleet, version: int, **more: Any) -> Any:
    body = {"model": "m", "version": version, "abort_rules": []} | more
    return fleet.call("POST", "/api/v1/rollouts", json=body)


def show(fleet: Fleet, rollout: Any) -> Any:
    return fleet.call("GET", f"/api/v1/rollouts/{rollout['id']}")


def end(fleet: Fleet, device: Any, **changes: Any) -> None:
    """The device takes its offer to the version, or to an end as `changes` say."""
    offer = fleet.offer(device)
    digest = fleet.digests[0] if changes else offer["weights_digest"]
    assert fleet.report(device, offer["assignment"], digest, **changes).is_success


def fail_twice(fleet: Fleet, device: Any) -> Any:
    """Bring the device into the box; the rollout in which it failed."""
    rollout = start(fleet, 2)
    end(fleet, device, **GONE)
    url = f"/api/v1/rollouts/{rollout['id']}/retry"
    fleet.call("POST", url, json={"device_id": device["device_id"]})
    end(fleet, device, **GONE)
    return rollout


def forget(fleet: Fleet, device: Any) -> None:
    fleet.call("PATCH", f"/api/v1/devices/{device['device_id']}", json={"failures": 0})


def test_a_boxed_device_is_left_out_counted_and_let_out(boxing):
    bad, good = (boxing.enrol(current=boxing.digests[0], name=name) for name in ("bad", "good"))
    first = start(boxing, 2)
    end(boxing, good)
    end(boxing, bad, **GONE)
    boxing.call("POST", f"/api/v1/rollouts/{first['id']}/retry", json={})
    end(boxing, bad, **GONE)
    boxing.publish(2, 3, b"third")
    rollout = start(boxing, 3, phases=[{"percent": 50}, {"percent": 100}])
    shown = show(boxing, rollout)
    assert (shown["devices"], shown["boxed"], shown["assignments"]) == (1, 1, {"idle": 1})
    assert [phase["quota"] for phase in shown["progress"]] == [1, 1]
    end(boxing, good)
    done = show(boxing, rollout)
    assert (done["state"], done["reason"]["code"]) == ("finished", "boxed")
    assert done["assignments"] == {"committed": 1}

    forget(boxing, bad)
    joined = show(boxing, rollout)
    assert (joined["state"], joined["devices"], joined["boxed"]) == ("active", 2, 0)
    end(boxing, bad)
    done = show(boxing, rollout)
    assert (done["state"], done["reason"]) == ("finished", None)
    assert done["assignments"] == {"committed": 2}


def test_a_rollout_of_boxed_devices_alone_says_so(boxing):
    device = boxing.enrol(current=boxing.digests[0])
    fail_twice(boxing, device)
    shown = show(boxing, start(boxing, 3))
    assert (shown["state"], shown["devices"], shown["boxed"]) == ("active", 0, 1)
    assert shown["reason"]["code"] == "boxed"


def test_the_last_failure_counts_before_a_newer_rollout_takes_the_device(boxing):
    device = boxing.enrol(current=boxing.digests[0])
    first = start(boxing, 2)
    end(boxing, device, **GONE)
    boxing.call("POST", f"/api/v1/rollouts/{first['id']}/retry", json={})
    offer = boxing.offer(device)
    with writing(boxing.server.app.state.engine) as session:
        session.execute(update(Assignment).values(state="swapping"))
    newer = start(boxing, 3)
    assert show(boxing, newer)["reason"]["code"] == "blocked"
    assert boxing.report(device, offer["assignment"], boxing.digests[0], **GONE).is_success
    shown = show(boxing, newer)
    assert (shown["assignments"], shown["reason"]["code"]) == ({}, "boxed")


def test_a_rollback_takes_it_and_a_success_lets_it_out(boxing):
    device = boxing.enrol(current=boxing.digests[0])
    first = fail_twice(boxing, device)
    waiting = start(boxing, 3)
    assert show(boxing, waiting)["boxed"] == 1
    back = start(boxing, 2, rollback=True, filter="name==cam")
    assert show(boxing, back)["devices"] == 1
    assert show(boxing, first)["state"] == "finished"
    end(boxing, device)
    found = boxing.call("GET", f"/api/v1/devices/{device['device_id']}")
    assert found["failures"] == 0


def test_a_retry_is_an_explicit_wish_and_its_success_lets_the_device_out(boxing):
    device = boxing.enrol(current=boxing.digests[0])
    first = fail_twice(boxing, device)
    start(boxing, 3, filter="name==nobody")
    boxing.call("POST", f"/api/v1/rollouts/{first['id']}/retry", json={})
    end(boxing, device)
    assert show(boxing, first)["assignments"] == {"committed": 1}
    assert show(boxing, start(boxing, 3))["devices"] == 1


def test_a_success_brings_the_device_into_the_rollout_that_left_it_out(boxing):
    device = boxing.enrol(current=boxing.digests[0])
    first = fail_twice(boxing, device)
    boxing.publish(2, 3, b"third")
    newer = start(boxing, 3)
    boxing.call("POST", f"/api/v1/rollouts/{first['id']}/retry", json={})
    end(boxing, device)
    assert show(boxing, newer)["devices"] == 1
    end(boxing, device)
    assert show(boxing, newer)["assignments"] == {"committed": 1}


def test_without_the_setting_nobody_is_left_out(fleet):
    device = fleet.enrol(current=fleet.digests[0])
    fleet.publish(1, 2, b"two")
    fail_twice(fleet, device)
    shown = show(fleet, start(fleet, 2))
    assert (shown["devices"], shown["boxed"]) == (1, 0)


def test_another_limit_lets_devices_out_at_the_next_start(serve, weights_file):
    server = serve(penalty_after=1)
    fleet = Fleet(server, [weights_file(seed) for seed in (0, 1, 2)])
    fleet.publish(1, 2, b"two")
    device = fleet.enrol(current=fleet.digests[0])
    start(fleet, 2)
    end(fleet, device, **GONE)
    rollout = start(fleet, 3)
    assert show(fleet, rollout)["boxed"] == 1
    server.stop()
    fleet.server = serve()
    assert show(fleet, rollout)["devices"] == 1
    assert show(fleet, rollout)["assignments"] == {"idle": 1}
