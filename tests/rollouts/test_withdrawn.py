"""A version is withdrawn: rollouts to it end, offers too, and history says so."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.db import reading
from server.tables import Model
from shared.metadata import PACKAGES, TARGETS, package_path, unpack


def withdraw(fleet: Any, number: int) -> Any:
    return fleet.call("POST", f"/api/v1/models/m/versions/{number}/withdraw")


def shown(fleet: Any, rollout: Any) -> Any:
    return fleet.call("GET", f"/api/v1/rollouts/{rollout['id']}")


def listed(fleet: Any) -> dict[str, set[str]]:
    state = fleet.server.app.state
    with reading(state.engine) as session:
        packed = state.trust.answer(session, session.get_one(Model, 1), {})
    read = {file.role: json.loads(file.content)["signed"] for file in unpack(packed or b"")}
    return {role: set(read[role]["targets"]) for role in (TARGETS, PACKAGES)}


@pytest.fixture
def under_way(fleet: Any) -> Any:
    """A fleet with one device that was offered version 2."""
    fleet.sha256 = fleet.publish(1, 2, b"forward")
    fleet.device = fleet.enrol(fleet.digests[0])
    fleet.rollout = fleet.roll_out(2)
    assert fleet.offer(fleet.device)["package"] is not None
    return fleet


def test_its_rollouts_are_aborted_and_its_offers_end(under_way: Any) -> None:
    before = under_way.poll(under_way.device)
    assert withdraw(under_way, 2)["withdrawn_at"] is not None
    after = under_way.poll(under_way.device, before.headers["etag"])
    assert (after.status_code, after.json()["models"]) == (200, [])
    found = shown(under_way, under_way.rollout)
    assert (found["state"], found["assignments"]) == ("aborted", {"aborted": 1})
    assert found["reason"] == {
        "code": "version_withdrawn",
        "message": "version 2 was withdrawn",
    }
    assert listed(under_way) == {TARGETS: set(), PACKAGES: set()}


def test_history_says_so(under_way: Any) -> None:
    withdraw(under_way, 2)
    events = under_way.call("GET", "/api/v1/events?order=oldest")["items"]
    kinds = [event["kind"] for event in events]
    order = ["version.released", "version.withdrawn", "rollout.aborted", "assignment.aborted"]
    places = [kinds.index(kind) for kind in order]
    assert places == sorted(places)


def test_what_was_ready_paused_or_finished_is_aborted_too(under_way: Any) -> None:
    fleet = under_way
    fleet.report(fleet.device, fleet.offer(fleet.device)["assignment"], fleet.digests[1])
    body = {"model": "m", "version": 2}
    ready = fleet.call("POST", "/api/v1/rollouts", json=body | {"start": False})
    nobody = fleet.call("POST", "/api/v1/rollouts", json=body | {"filter": "name==none"})
    paused = fleet.call("POST", f"/api/v1/rollouts/{nobody['id']}/pause")
    assert shown(fleet, fleet.rollout)["state"] == "finished"
    withdraw(fleet, 2)
    states = [shown(fleet, rollout)["state"] for rollout in (fleet.rollout, ready, paused)]
    assert states == ["aborted"] * 3
    late = fleet.enrol(fleet.digests[0])
    assert fleet.poll(late).json()["models"] == []


def test_it_can_be_deployed_no_more(under_way: Any) -> None:
    withdraw(under_way, 2)
    body = {"model": "m", "version": 2}
    refused = under_way.call("POST", "/api/v1/rollouts", status=409, json=body)
    assert refused["code"] == "version.withdrawn"


def test_devices_that_run_it_go_on_and_can_be_taken_back(under_way: Any) -> None:
    fleet = under_way
    fleet.report(fleet.device, fleet.offer(fleet.device)["assignment"], fleet.digests[1])
    fleet.publish(2, 1, b"back")
    withdraw(fleet, 2)
    assert fleet.poll(fleet.device).json()["models"] == []
    back = fleet.call("POST", f"/api/v1/rollouts/{fleet.rollout['id']}/roll_back")
    assert (back["version"], back["state"]) == (1, "active")
    offer = fleet.offer(fleet.device)
    assert (offer["version"], offer["rollback"]) == (1, True)
    assert offer["package"]["base_digest"] == fleet.digests[1]  # from the weights withdrawn


def test_the_version_before_is_never_one_that_was_withdrawn(under_way: Any) -> None:
    fleet = under_way
    fleet.release(1)
    withdraw(fleet, 1)
    url = f"/api/v1/rollouts/{fleet.rollout['id']}/roll_back"
    assert fleet.call("POST", url, status=409)["code"] == "rollout.no_previous_version"


def test_chains_through_it_are_planned_anew(fleet: Any, weights_file: Any) -> None:
    fleet._upload(weights_file(2))
    steps = [fleet.publish(1, 2, b"one"), fleet.publish(2, 3, b"two")]
    straight = fleet.publish(1, 3, b"much larger than those two")
    fleet.release(2)
    device = fleet.enrol(fleet.digests[0], capabilities={"chain": 8})
    rollout = fleet.roll_out(3)
    before = fleet.poll(device)
    (model,) = before.json()["models"]
    assert [package["sha256"] for package in model["chain"]] == steps
    withdraw(fleet, 2)
    after = fleet.poll(device, before.headers["etag"])
    (model,) = after.json()["models"]
    assert model["package"]["sha256"] == straight
    assert shown(fleet, rollout)["state"] == "active"
    assert listed(fleet)[PACKAGES] == {package_path(steps[1]), package_path(straight)}


def test_where_the_release_key_is_elsewhere_it_ends_all_the_same(
    under_way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust = under_way.server.app.state.trust
    monkeypatch.setattr(type(trust), "can_release", lambda *_: False)
    withdraw(under_way, 2)
    assert under_way.poll(under_way.device).json()["models"] == []
    assert listed(under_way)[PACKAGES] == set()
    assert shown(under_way, under_way.rollout)["state"] == "aborted"
