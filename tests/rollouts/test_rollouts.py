"""Rollouts over HTTP: who is admitted, when one ends, what takes its place."""

from __future__ import annotations

from typing import get_args

import pytest

from server.rollouts import evaluation
from server.rollouts import states as of_assignments
from server.rollouts.paths import AssignmentState


@pytest.fixture
def published(fleet):
    fleet.publish(1, 2, b"forward")
    fleet.publish(2, 1, b"backward")
    return fleet


def states(fleet, rollout):
    found = fleet.call("GET", f"/api/v1/rollouts/{rollout['id']}")
    return found["state"], found["assignments"]


def test_every_device_of_the_model_is_admitted(published):
    old, there = published.enrol(published.digests[0]), published.enrol(published.digests[1])
    published.enrol(models={"other": {}})
    rollout = published.roll_out(2)
    assert rollout["assignments"] == {"idle": 1, "committed": 1}
    published.poll(old)
    assert states(published, rollout) == ("active", {"offered": 1, "committed": 1})
    assert published.poll(there).json()["models"] == []
    listed = published.call("GET", f"/api/v1/rollouts/{rollout['id']}/assignments")["items"]
    by_device = {a["device_id"]: a for a in listed}
    assert by_device[old["device_id"]]["offered_at"] is not None
    assert by_device[there["device_id"]]["result"] == "committed"


def test_more_devices_than_a_batch(published, monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH_ROWS", 2)
    for _ in range(5):
        published.enrol(published.digests[0])
    rollout = published.roll_out(2)
    assert states(published, rollout) == ("active", {"idle": 5})


def test_a_start_that_was_cut_off_is_resumed(serve, published, monkeypatch):
    for _ in range(3):
        published.enrol(published.digests[0])
    with monkeypatch.context() as patch:  # as in a large fleet, in a process that dies at once
        patch.setattr(evaluation, "SMALL_FLEET", 0)
        patch.setattr(evaluation, "evaluate", lambda *_: None)
        rollout = published.roll_out(2)
        assert states(published, rollout) == ("active", {})
        published.server.stop()
    published.server = serve()
    assert states(published, rollout) == ("active", {"idle": 3})


def test_it_waits_for_the_first_device_and_late_ones_join(published):
    rollout = published.roll_out(2)
    assert states(published, rollout) == ("active", {})
    first = published.enrol(published.digests[0])
    published.report(first, published.offer(first)["assignment"], published.digests[1])
    assert states(published, rollout) == ("finished", {"committed": 1})
    late = published.enrol(published.digests[0])
    assert states(published, rollout) == ("active", {"committed": 1, "idle": 1})
    published.report(late, published.offer(late)["assignment"], published.digests[1])
    assert states(published, rollout) == ("finished", {"committed": 2})


def test_a_newer_rollout_takes_over(published):
    device = published.enrol(published.digests[0])
    first = published.roll_out(2)
    old = published.offer(device)["assignment"]
    second = published.roll_out(1)
    assert states(published, first) == ("finished", {"superseded": 1})
    assert states(published, second) == ("finished", {"committed": 1})
    assert published.poll(device).json()["models"] == []
    # The device was busy with the old one all the while, and says so.
    assert published.report(device, old, published.digests[1]).status_code == 200
    assert states(published, first) == ("finished", {"superseded": 1})
    kinds = [e["kind"] for e in published.call("GET", "/api/v1/events?kind=assignment")["items"]]
    assert kinds[-3:] == ["assignment.late_report", "assignment.superseded", "assignment.offered"]
    # It is where nobody wants it now; the newer rollout sees to that, once it may lead back.
    assert kinds[0] == "assignment.reopened"
    assert published.offer(device)["held"] == "needs_rollback_mark"


@pytest.mark.parametrize(
    ("changes", "state", "code"),
    [
        ({"result": "committed"}, "failed", "result.mismatch"),
        (
            {
                "result": "failed_no_change",
                "state": "failed",
                "error": {"code": "package.malformed", "message": "damaged"},
            },
            "failed",
            "package.malformed",
        ),
        (
            {
                "result": "failed_rolled_back",
                "state": "rolled_back",
                "error": {"code": "health.refused", "message": "no"},
            },
            "rolled_back",
            "health.refused",
        ),
    ],
)
def test_what_went_wrong_is_kept(published, changes, state, code):
    device = published.enrol(published.digests[0])
    rollout = published.roll_out(2)
    assignment = published.offer(device)["assignment"]
    published.report(device, assignment, published.digests[0], **changes)
    assert states(published, rollout) == ("finished", {state: 1})
    url = f"/api/v1/rollouts/{rollout['id']}/assignments"
    (shown,) = published.call("GET", url)["items"]
    assert (shown["state"], shown["error"]["code"]) == (state, code)
    assert published.poll(device).json()["models"] == []


def test_an_aborted_rollout_offers_nothing_and_admits_nobody(published):
    device = published.enrol(published.digests[0])
    rollout = published.roll_out(2)
    etag = published.poll(device).headers["etag"]
    url = f"/api/v1/rollouts/{rollout['id']}/abort"
    assert published.call("POST", url)["state"] == "aborted"
    assert published.poll(device, etag).json()["models"] == []
    assert published.poll(published.enrol(published.digests[0])).json()["models"] == []
    assert states(published, rollout) == ("aborted", {"aborted": 1})
    assert published.call("POST", url, status=409)["code"] == "rollout.not_active"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": "x", "version": 1}, "model.not_found"),
        ({"model": "m", "version": 9}, "version.not_found"),
    ],
)
def test_only_what_exists_is_rolled_out(fleet, body, code):
    assert fleet.call("POST", "/api/v1/rollouts", status=404, json=body)["code"] == code


def test_a_group_that_is_not_there_is_no_rollout(published):
    body = {"model": "m", "version": 2, "filter": "group==nobody"}
    refused = published.call("POST", "/api/v1/rollouts", status=422, json=body)
    assert refused["code"] == "filter.bad_value"
    assert published.call("GET", "/api/v1/rollouts")["items"] == []


@pytest.mark.parametrize("of", ["?state=runing", "/1/assignments?state=comitted"])
def test_a_state_that_there_is_not_is_told(published, of):
    refused = published.call("GET", f"/api/v1/rollouts{of}", status=422)
    assert refused["code"] == "request.invalid"
    assert "committed" in refused["detail"] or "active" in refused["detail"]


def test_the_states_of_queries_are_those_there_are():
    assert set(get_args(AssignmentState)) == of_assignments.OPEN | of_assignments.FINAL


def test_rollouts_are_listed(published):
    published.roll_out(1)
    published.roll_out(2)
    listed = published.call("GET", "/api/v1/rollouts?model=m")["items"]
    assert [r["version"] for r in listed] == [2, 1]
    active = published.call("GET", "/api/v1/rollouts?state=active")["items"]
    assert [r["version"] for r in active] == [2]
    assert published.call("GET", "/api/v1/rollouts/99", status=404)["code"] == "rollout.not_found"


def test_a_deferred_update_stays_open(published):
    device = published.enrol(published.digests[0])
    rollout = published.roll_out(2)
    before = published.poll(device)
    assignment = before.json()["models"][0]["assignment"]
    later = {
        "result": "failed_no_change",
        "state": "deferred",
        "error": {"code": "storage.no_space", "message": "full"},
    }
    published.report(device, assignment, published.digests[0], **later)
    assert states(published, rollout) == ("active", {"deferred": 1})
    assert published.poll(device, before.headers["etag"]).status_code == 304
    published.report(device, assignment, published.digests[1])
    assert states(published, rollout) == ("finished", {"committed": 1})


def test_a_model_that_comes_to_a_device_later_joins(published):
    device = published.enrol(models={})
    rollout = published.roll_out(2)
    news = {"result": "failed_no_change", "state": "idle"}
    published.report(device, None, published.digests[0], **news)
    assert states(published, rollout) == ("active", {"idle": 1})
