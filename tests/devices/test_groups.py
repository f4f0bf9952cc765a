"""Groups: saved filters, and what holds for the devices that match."""

from __future__ import annotations

import pytest

from server.db import writing
from server.devices.policy import settle_all
from server.tables import Group, Rollout

GROUPS = "/api/v1/groups"


def save(fleet, name, text, **policy):
    return fleet.call("POST", GROUPS, 201, json={"name": name, "filter": text, **policy})


def policy(fleet, device):
    shown = fleet.call("GET", f"/api/v1/devices/{device['device_id']}")
    return shown["poll_interval"], shown["update_budget"]


def test_a_group_is_saved_shown_changed_and_deleted(fleet):
    fleet.enrol(name="cam1")
    saved = save(fleet, "cams", "name==cam*", poll_interval=30)
    assert (saved["devices"], saved["update_budget"]) == (1, None)
    fleet.enrol(name="cam2")
    shown = fleet.call("GET", f"{GROUPS}/cams")
    assert shown == saved | {"devices": 2}
    members = fleet.call("GET", f"{GROUPS}/cams/devices", params={"limit": 1})
    assert (len(members["items"]), members["next"] is None) == (1, False)
    changed = fleet.call("PATCH", f"{GROUPS}/cams", json={"filter": "name==cam1", "name": "one"})
    assert (changed["name"], changed["devices"], changed["poll_interval"]) == ("one", 1, 30)
    (listed,) = fleet.call("GET", GROUPS)["items"]
    assert listed == changed | {"devices": None}
    assert fleet.server.client.delete(f"{GROUPS}/one").status_code == 204
    assert fleet.call("GET", f"{GROUPS}/one", 404)["code"] == "group.not_found"
    kinds = [e["kind"] for e in fleet.call("GET", "/api/v1/events?kind=group")["items"]]
    assert kinds == ["group.deleted", "group.changed", "group.created"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "a b", "filter": "tags==a"}, "request.invalid"),
        ({"name": "a"}, "request.invalid"),
        ({"name": "a", "filter": "tags=a"}, "filter.syntax"),
        ({"name": "a", "filter": "group==b"}, "filter.bad_value"),
        ({"name": "a", "filter": "tags==a", "poll_interval": 0}, "request.invalid"),
        ({"name": "a", "filter": "tags==a", "update_budget": -1}, "request.invalid"),
        ({"name": "a", "filter": "tags==a", "update_budget": 1 << 63}, "request.invalid"),
    ],
)
def test_what_is_no_group_is_refused(fleet, body, code):
    assert fleet.call("POST", GROUPS, 422, json=body)["code"] == code
    assert fleet.call("GET", GROUPS)["items"] == []


def test_names_are_unique_and_creates_can_be_repeated(fleet):
    body = {"name": "a", "filter": "tags==a"}
    key = {"Idempotency-Key": "once"}
    first = fleet.call("POST", GROUPS, 201, json=body, headers=key)
    assert fleet.call("POST", GROUPS, 201, json=body, headers=key) == first
    assert fleet.call("POST", GROUPS, 409, json=body)["code"] == "group.exists"
    save(fleet, "b", "tags==b")
    assert fleet.call("PATCH", f"{GROUPS}/b", 409, json={"name": "a"})["code"] == "group.exists"
    assert fleet.call("PATCH", f"{GROUPS}/b", json={"name": "b"})["name"] == "b"
    refused = fleet.call("PATCH", f"{GROUPS}/b", 422, json={"filter": None})
    assert refused["code"] == "request.invalid"


def test_groups_may_name_groups_but_not_in_a_circle(fleet):
    save(fleet, "a", "tags==a")
    save(fleet, "b", "group==a,tags==b")
    save(fleet, "c", "group!=b")
    for text in ("group==c", "group==a", "tags==x;group=in=(b,c)"):
        answer = fleet.call("PATCH", f"{GROUPS}/a", 409, json={"filter": text})
        assert answer["code"] == "group.circular"
    assert fleet.call("GET", f"{GROUPS}/a")["filter"] == "tags==a"


def test_groups_are_not_nested_without_end_nor_blown_up(fleet):
    save(fleet, "g0", "tags==a")
    save(fleet, "root", "tags==b")
    for depth in range(1, 6):
        save(fleet, f"g{depth}", f"group==g{depth - 1}")
    body = {"name": "g6", "filter": "group==g5"}
    assert fleet.call("POST", GROUPS, 422, json=body)["code"] == "filter.too_long"
    too_deep = {"filter": "group==root"}
    assert fleet.call("PATCH", f"{GROUPS}/g0", 422, json=too_deep)["code"] == "filter.too_long"
    save(fleet, "wide", "tags=in=(" + ",".join(f"t{n}" for n in range(190)) + ")")
    body = {"name": "wider", "filter": ",".join(["group==wide"] * 5)}
    assert fleet.call("POST", GROUPS, 422, json=body)["code"] == "filter.too_long"
    body["filter"] = ",".join(["group==wide"] * 3)
    assert fleet.call("POST", GROUPS, 201, json=body)["devices"] == 0


def test_a_group_in_use_stays(fleet):
    """Also for a rollout that has finished, if it is the newest: later devices still join it."""
    save(fleet, "a", "tags==a")
    save(fleet, "b", "group==a")
    with writing(fleet.server.app.state.engine) as session:
        rollout = Rollout(model_id=1, version_id=1, state="active", filter="group==b")
        session.add(rollout)
    for state in ("finished", "aborted"):
        for name, told in (("a", "the group 'b'"), ("b", "rollout 1")):
            refused = fleet.call("DELETE", f"{GROUPS}/{name}", 409)
            assert (refused["code"], told in refused["detail"]) == ("group.in_use", True)
            refused = fleet.call("PATCH", f"{GROUPS}/{name}", 409, json={"name": "z"})
            assert refused["code"] == "group.in_use"
        with writing(fleet.server.app.state.engine) as session:
            session.get_one(Rollout, 1).state = state
    for name in ("b", "a"):
        assert fleet.server.client.delete(f"{GROUPS}/{name}").status_code == 204


def test_the_shortest_interval_and_the_smallest_budget_count(fleet):
    device, other = fleet.enrol(name="cam1"), fleet.enrol(name="gate")
    save(fleet, "all", "id==*", poll_interval=60, update_budget=0)
    assert policy(fleet, device) == policy(fleet, other) == (60, 0)
    save(fleet, "cams", "name==cam*", poll_interval=90, update_budget=1000)
    assert (policy(fleet, device), policy(fleet, other)) == ((60, 1000), (60, 0))
    fleet.call("PATCH", f"{GROUPS}/all", json={"poll_interval": None, "update_budget": None})
    assert (policy(fleet, device), policy(fleet, other)) == ((90, 1000), (None, None))
    fleet.server.client.delete(f"{GROUPS}/cams")
    assert policy(fleet, device) == (None, None)


def test_policy_follows_what_happens_to_a_device(fleet):
    save(fleet, "slow", "tags==slow", poll_interval=600)
    save(fleet, "small", "attr.link==uhf", update_budget=10)
    save(fleet, "old", "version.m<2", poll_interval=5)
    device = fleet.enrol(fleet.digests[1], attributes={"link": "uhf"})
    path = f"/api/v1/devices/{device['device_id']}"
    assert policy(fleet, device) == (None, 10)
    fleet.call("PUT", f"{path}/tags/slow")
    assert policy(fleet, device) == (600, 10)
    assert 540 <= float(fleet.poll(device).headers["weft-poll-interval"]) <= 660
    fleet.report(device, None, fleet.digests[0], attributes={})
    assert policy(fleet, device) == (5, None)
    body = {"filter": "id==*", "remove": ["slow"]}
    fleet.call("POST", "/api/v1/devices/tags", json=body)
    fleet.report(device, None, fleet.digests[1])
    assert policy(fleet, device) == (None, None)


def test_a_larger_budget_reaches_the_device_that_is_held(fleet):
    fleet.publish(1, 2, b"the package")
    save(fleet, "all", "id==*", update_budget=5)
    device = fleet.enrol(fleet.digests[0], capabilities={"methods": {"ka": 1}})
    fleet.roll_out(2)
    held = fleet.poll(device)
    assert held.json()["models"][0]["held"] == "over_budget"
    assert fleet.poll(device, held.headers["etag"]).status_code == 304
    fleet.call("PATCH", f"{GROUPS}/all", json={"update_budget": 5000})
    freed = fleet.poll(device, held.headers["etag"])
    assert freed.headers["etag"] != held.headers["etag"]
    assert freed.json()["models"][0]["package"]["size"] == 11


def test_a_smaller_budget_takes_back_an_offer_above_it(fleet):
    fleet.publish(1, 2, b"the package")
    device = fleet.enrol(fleet.digests[0], capabilities={"methods": {"ka": 1}})
    fleet.roll_out(2)
    offered = fleet.poll(device)
    assert offered.json()["models"][0]["package"]["size"] == 11
    etag = fleet.poll(device).headers["etag"]
    assert fleet.poll(device, etag).status_code == 304
    save(fleet, "all", "id==*", update_budget=5)
    assert fleet.poll(device, etag).json()["models"][0]["held"] == "over_budget"


def test_what_an_interrupted_server_left_is_settled(fleet):
    """The request that saves a group may be killed before all its devices are seen to."""
    device = fleet.enrol()
    with writing(fleet.server.app.state.engine) as session:
        session.add(Group(name="g", filter="id==*", poll_interval=7))
    assert settle_all(fleet.server.app.state.engine) == 1
    assert policy(fleet, device) == (7, None)
    assert settle_all(fleet.server.app.state.engine) == 0
