"""Every event names the things that it is about, so that it can be used without guessing."""

from __future__ import annotations

from typing import Any

#: First part of a kind -> the ids that such an event always has.
IDS = {
    "assignment": {"model_id", "version_id", "rollout_id", "device_id", "assignment_id"},
    "rollout": {"model_id", "version_id", "rollout_id"},
    "package": {"model_id", "version_id", "package_id"},
    "version": {"model_id", "version_id"},
    "device": {"device_id"},
}


def test_every_event_names_what_it_is_about(fleet: Any) -> None:
    old, new = fleet.digests
    fleet.publish(1, 2, b"a package")
    good, bad, late = (fleet.enrol(old, name) for name in ("good", "bad", "late"))
    rollout = fleet.roll_out(2)
    fleet.report(good, fleet.offer(good)["assignment"], new)
    failed = {"result": "failed_rolled_back", "state": "rolled_back"}
    fleet.report(bad, fleet.offer(bad)["assignment"], old, **failed)
    fleet.offer(late)
    fleet.call("POST", f"/api/v1/rollouts/{rollout['id']}/abort")

    events = fleet.call("GET", "/api/v1/events?limit=500")["items"]
    by_kind = {event["kind"]: event for event in events}
    assert {"assignment.committed", "assignment.rolled_back", "rollout.aborted"} <= by_kind.keys()
    for event in events:
        missing = {n for n in IDS.get(event["kind"].partition(".")[0], ()) if event[n] is None}
        assert not missing, (event["kind"], missing)
    assert by_kind["assignment.offered"]["package_id"] is not None
    assert by_kind["assignment.committed"]["package_id"] is not None
