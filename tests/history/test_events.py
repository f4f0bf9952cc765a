"""The history of one update, as an operator reads it."""

from __future__ import annotations


def test_the_whole_story_in_order(fleet):
    fleet.publish(1, 2, b"the package")
    device = fleet.enrol(fleet.digests[0])
    rollout = fleet.roll_out(2)
    fleet.report(device, fleet.offer(device)["assignment"], fleet.digests[1], seconds=2.0)
    events = fleet.call("GET", "/api/v1/events?order=oldest")["items"]
    assert [e["kind"] for e in events] == [
        "model.created",
        "version.uploaded",
        "version.uploaded",
        "device.enrolled",
        "rollout.created",
        "assignment.offered",
        "assignment.committed",
        "rollout.finished",
    ]
    committed = events[-2]
    assert committed["device_id"] == device["device_id"]
    assert committed["rollout_id"] == rollout["id"]
    assert committed["package_id"] is not None
    assert committed["data"]["seconds"] == 2.0
    newest = fleet.call("GET", "/api/v1/events")["items"]
    assert newest == events[::-1]


def test_filters_and_pages(fleet):
    device = fleet.enrol(fleet.digests[0])
    get = fleet.call
    versions = get("GET", "/api/v1/events?kind=version")["items"]
    assert {e["kind"] for e in versions} == {"version.uploaded"}
    assert get("GET", "/api/v1/events?kind=vers")["items"] == []
    mine = get("GET", f"/api/v1/events?device_id={device['device_id']}")["items"]
    assert [e["kind"] for e in mine] == ["device.enrolled"]
    assert len(get("GET", "/api/v1/events?model=m")["items"]) == 3
    assert get("GET", "/api/v1/events?model=other")["items"] == []
    first = get("GET", "/api/v1/events?limit=2&order=oldest")
    second = get("GET", f"/api/v1/events?limit=2&order=oldest&cursor={first['next']}")
    assert [e["id"] for e in first["items"] + second["items"]] == [1, 2, 3, 4]
    assert second["next"] is None
