"""Devices as operators see them: all they hold, found by filter, in an order, page by page."""

from __future__ import annotations

from datetime import timedelta

import pytest

from server.db import writing
from server.tables import Device, now


def show(fleet, device):
    return fleet.call("GET", f"/api/v1/devices/{device['device_id']}")


def names(fleet, **query):
    page = fleet.call("GET", "/api/v1/devices", params=query)
    return [device["name"] for device in page["items"]]


def test_a_device_is_shown_with_all_it_holds(fleet):
    fleet.publish(1, 2, b"the package")
    held = {"slots": [fleet.digests[0], "f" * 64], "current": fleet.digests[0]}
    capabilities = {"agent": "0.2.0", "methods": {"ka": 1}}
    device = fleet.enrol(
        models={"m": held}, attributes={"gpu": "orin"}, capabilities=capabilities, name="cam-1"
    )
    fleet.roll_out(2)
    fleet.poll(device)
    shown = show(fleet, device)
    assert (shown["name"], shown["attributes"], shown["tags"]) == ("cam-1", {"gpu": "orin"}, [])
    assert shown["capabilities"]["methods"] == {"ka": 1}
    assert (shown["failures"], shown["poll_interval"], shown["update_budget"]) == (0, None, None)
    (model,) = shown["models"]
    assert (model["version"], model["weights_digest"]) == (1, fleet.digests[0])
    assert model["slots"] == [
        {"weights_digest": fleet.digests[0], "version": 1},
        {"weights_digest": "f" * 64, "version": None},
    ]
    assert (model["assignment"]["version"], model["assignment"]["state"]) == (2, "offered")
    assert model["assignment"]["held"] is None


def test_weights_that_nobody_knows_have_no_version(fleet):
    (model,) = show(fleet, fleet.enrol("e" * 64))["models"]
    assert (model["weights_digest"], model["version"]) == ("e" * 64, None)
    assert names(fleet, filter="version.m=null=true") == ["cam"]


def test_why_a_device_is_held_is_shown_and_can_be_searched_for(fleet):
    fleet.publish(1, 2, b"the package")
    fleet.call("POST", "/api/v1/groups", json={"name": "g", "filter": "id==*", "update_budget": 5})
    device = fleet.enrol(fleet.digests[0], capabilities={"methods": {"ka": 1}})
    fleet.roll_out(2)
    assert fleet.offer(device)["held"] == "over_budget"
    (model,) = show(fleet, device)["models"]
    assert model["assignment"]["held"] == "over_budget"
    assert model["assignment"]["held_detail"]["budget"] == 5
    assert names(fleet, filter="held.m==over_budget") == ["cam"]


def test_success_counts_only_with_the_digest(fleet):
    """field.md 1: "installed" is what was loaded and checked, not what the device says it is."""
    fleet.publish(1, 2, b"the package")
    device = fleet.enrol(fleet.digests[0])
    fleet.roll_out(2)
    assignment = fleet.offer(device)["assignment"]
    fleet.report(device, assignment, fleet.digests[0], version=2)
    shown = show(fleet, device)
    assert (shown["models"][0]["version"], shown["failures"]) == (1, 1)
    assert names(fleet, filter="version.m==2") == []


def test_silent_devices_are_found(fleet):
    """field.md 2: a device that says nothing is not one that is well."""
    fleet.enrol(fleet.digests[0], "heard")
    silent = fleet.enrol(fleet.digests[0], "silent")["device_id"]
    eight_days_ago = now() - timedelta(days=8)
    with writing(fleet.server.app.state.engine) as session:
        session.get_one(Device, silent).last_seen_at = eight_days_ago
    assert names(fleet, filter="last_seen=lt=-7d") == ["silent"]
    assert names(fleet, filter=f"last_seen<={eight_days_ago.isoformat()}") == ["silent"]
    assert names(fleet, filter="last_seen<-9d") == []


def test_lists_are_sorted_and_paged(fleet):
    for name in ("b", "a", "b", "c"):
        fleet.enrol(fleet.digests[0], name)
    assert names(fleet) == ["c", "b", "a", "b"]
    assert names(fleet, sort="name") == ["a", "b", "b", "c"]
    for sort, expected in (("newest", "cbab"), ("name", "abbc")):
        query = {"sort": sort, "limit": 1}
        found = ""
        while query.get("cursor", "") is not None:
            page = fleet.call("GET", "/api/v1/devices", params=query)
            found += "".join(device["name"] for device in page["items"])
            query["cursor"] = page["next"]
        assert found == expected


def test_a_cursor_of_another_order_is_refused(fleet):
    for name in ("a", "b"):
        fleet.enrol(fleet.digests[0], name)
    first = fleet.call("GET", "/api/v1/devices", params={"sort": "name", "limit": 1})
    for cursor in (first["next"], "WyIyMDI2IiwgMV0"):
        query = {"sort": "newest", "cursor": cursor}
        answer = fleet.call("GET", "/api/v1/devices", 400, params=query)
        assert answer["code"] == "request.bad_cursor"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("tags=", "filter.syntax"),
        ("colour==red", "filter.unknown_field"),
        ("failures==few", "filter.bad_value"),
        ("name==" + "x" * 5000, "filter.too_long"),
        ("group==nobody", "filter.bad_value"),
    ],
)
def test_a_filter_that_cannot_be_read_is_refused(fleet, text, code):
    answer = fleet.call("GET", "/api/v1/devices", 422, params={"filter": text})
    assert answer["code"] == code
    assert "column" in answer["detail"] or code == "filter.too_long"


def test_a_device_is_renamed_and_its_failures_forgotten(fleet):
    fleet.publish(1, 2, b"the package")
    device = fleet.enrol(fleet.digests[0])
    path = f"/api/v1/devices/{device['device_id']}"
    for expected in (1, 2):
        fleet.roll_out(2)
        assignment = fleet.offer(device)["assignment"]
        changes = {"result": "failed_rolled_back", "state": "rolled_back"}
        fleet.report(device, assignment, fleet.digests[0], **changes)
        assert fleet.call("GET", path)["failures"] == expected
    assert names(fleet, filter="failures>1") == ["cam"]
    fleet.report(device, assignment, fleet.digests[0], **changes)  # late: counted once
    assert fleet.call("GET", path)["failures"] == 2
    changed = fleet.call("PATCH", path, json={"name": "cam-2", "failures": 0})
    assert (changed["name"], changed["failures"]) == ("cam-2", 0)
    fleet.call("PATCH", path, json={"name": "cam-2"})
    events = fleet.call("GET", "/api/v1/events?kind=device.changed")["items"]
    assert [event["data"] for event in events] == [
        {"name": "cam-2", "failures": 0, "before": {"name": "cam", "failures": 2}}
    ]


def test_success_ends_the_count_of_failures(fleet):
    fleet.publish(1, 2, b"the package")
    device = fleet.enrol(fleet.digests[0])
    fleet.roll_out(2)
    fleet.report(device, fleet.offer(device)["assignment"], fleet.digests[0])
    fleet.roll_out(2)
    fleet.report(device, fleet.offer(device)["assignment"], fleet.digests[1])
    assert show(fleet, device)["failures"] == 0


@pytest.mark.parametrize(
    "body", [{"name": None}, {"name": ""}, {"name": "a\x00"}, {"failures": 1}, {"id": "x"}]
)
def test_what_cannot_be_changed_is_refused(fleet, body):
    path = f"/api/v1/devices/{fleet.enrol()['device_id']}"
    assert fleet.call("PATCH", path, 422, json=body)["code"] == "request.invalid"
    assert fleet.call("PATCH", "/api/v1/devices/no", 404, json={})["code"] == "device.not_found"


def test_attributes_follow_the_device(fleet):
    device = fleet.enrol(fleet.digests[0], attributes={"gpu": "none"})
    idle = {"state": "idle", "health": "unverified"}
    fleet.report(device, None, fleet.digests[0], state="failed", health="passed")
    fleet.report(device, None, fleet.digests[0], attributes={"gpu": "orin", "ram": "8"}, **idle)
    shown = show(fleet, device)
    assert shown["attributes"] == {"gpu": "orin", "ram": "8"}
    assert (shown["models"][0]["state"], shown["models"][0]["health"]) == ("failed", "passed")
    fleet.report(device, None, fleet.digests[0], **idle)
    assert show(fleet, device)["attributes"] == {"gpu": "orin", "ram": "8"}
    assert names(fleet, filter="attr.ram>=8;attr.gpu==orin") == ["cam"]
    events = fleet.call("GET", "/api/v1/events?kind=device.attributes_changed")["items"]
    assert [event["data"] for event in events] == [{"gpu": "orin", "ram": "8"}]
