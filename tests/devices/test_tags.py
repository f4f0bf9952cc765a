"""Tags: on one device, and on all that match a filter."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from server.db import BATCH_ROWS, reading, writing
from server.devices.tags import tag_matching
from server.rollouts.evaluation import evaluate_due
from server.tables import Device, DeviceTag, Event


def events(fleet):
    found = fleet.call("GET", "/api/v1/events?kind=device.tags_changed&order=oldest")
    return [event["data"] for event in found["items"]]


def test_a_tag_is_put_on_a_device_and_taken_off(fleet):
    path = f"/api/v1/devices/{fleet.enrol()['device_id']}/tags"
    for tag in ("line3", "site:bern", "line3"):
        shown = fleet.call("PUT", f"{path}/{tag}")
    assert shown["tags"] == ["line3", "site:bern"]
    for _ in range(2):
        assert fleet.call("DELETE", f"{path}/line3")["tags"] == ["site:bern"]
    assert events(fleet) == [
        {"added": ["line3"], "removed": []},
        {"added": ["site:bern"], "removed": []},
        {"added": [], "removed": ["line3"]},
    ]


def test_only_words_are_tags_and_only_devices_have_them(fleet):
    path = f"/api/v1/devices/{fleet.enrol()['device_id']}/tags"
    for tag in ("a b", "-a", "x" * 65, "é"):
        assert fleet.call("PUT", f"{path}/{tag}", 422)["code"] == "request.invalid"
    for verb in ("PUT", "DELETE"):
        answer = fleet.call(verb, "/api/v1/devices/nobody/tags/a", 404)
        assert answer["code"] == "device.not_found"


def test_all_that_match_are_tagged(fleet):
    for name in ("cam1", "cam2", "gate"):
        fleet.enrol(name=name)
    body = {"filter": "name==cam*", "add": ["canary", "east"], "remove": ["west"]}
    answers = [fleet.call("POST", "/api/v1/devices/tags", json=body) for _ in range(2)]
    assert answers == [{"matched": 2, "changed": 2}, {"matched": 2, "changed": 0}]
    assert events(fleet) == [{"added": ["canary", "east"], "removed": []}] * 2
    body = {"filter": "tags==canary", "add": ["west"], "remove": ["canary", "east"]}
    assert fleet.call("POST", "/api/v1/devices/tags", json=body) == {"matched": 2, "changed": 2}
    page = fleet.call("GET", "/api/v1/devices", params={"filter": "tags==west;tags!=canary"})
    assert {device["name"] for device in page["items"]} == {"cam1", "cam2"}
    answer = fleet.call("POST", "/api/v1/devices/tags", 422, json={"filter": "tag=="})
    assert answer["code"] == "filter.syntax"


def test_many_are_tagged_in_batches(server):
    """What the filter asks for may change under it: each device is looked at once."""
    engine, many = server.app.state.engine, 2 * BATCH_ROWS + 1
    with writing(engine) as session:
        session.add_all(Device(id=f"{n:05}", name="d", token_hash=f"{n}") for n in range(many))
    assert tag_matching(engine, "tags=null=true", {"a"}, set()).changed == many
    assert tag_matching(engine, "tags==a", {"b"}, {"a"}).changed == many
    with reading(engine) as session:
        counted = select(DeviceTag.tag, func.count()).group_by(DeviceTag.tag)
        assert [tuple(row) for row in session.execute(counted)] == [("b", many)]
        told = select(func.count()).where(Event.kind == "device.tags_changed")
        assert session.scalar(told) == 2 * many


@pytest.mark.parametrize("body", [{}, {"filter": "id==*", "add": ["a b"]}, {"filter": 1}])
def test_what_is_no_request_to_tag_is_refused(server, body):
    answer = server.client.post("/api/v1/devices/tags", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")


def test_a_device_that_comes_to_match_a_rollout_joins_it(fleet):
    fleet.publish(1, 2, b"the package")
    tagged, told, bulk = (fleet.enrol(fleet.digests[0], name) for name in ("a", "b", "c"))
    text = "tags==canary,attr.gpu==orin"
    body = {"model": "m", "version": 2, "filter": text}
    fleet.call("POST", "/api/v1/rollouts", json=body)
    assert [fleet.poll(device).json()["models"] for device in (tagged, told, bulk)] == [[]] * 3
    fleet.call("PUT", f"/api/v1/devices/{tagged['device_id']}/tags/canary")
    fleet.report(told, None, fleet.digests[0], state="idle", attributes={"gpu": "orin"})
    body = {"filter": "name==c", "add": ["canary"]}
    fleet.call("POST", "/api/v1/devices/tags", json=body)
    evaluate_due(fleet.server.app.state.engine)
    assert [fleet.offer(device)["version"] for device in (tagged, told, bulk)] == [2] * 3


def test_a_group_that_grows_brings_its_devices_into_a_rollout(fleet):
    fleet.publish(1, 2, b"the package")
    device = fleet.enrol(fleet.digests[0], "late")
    body = {"name": "early", "filter": "name==nobody"}
    fleet.call("POST", "/api/v1/groups", json=body)
    body = {"model": "m", "version": 2, "filter": "group==early"}
    fleet.call("POST", "/api/v1/rollouts", json=body)
    assert fleet.poll(device).json()["models"] == []
    fleet.call("PATCH", "/api/v1/groups/early", json={"filter": "name==late"})
    evaluate_due(fleet.server.app.state.engine)
    assert fleet.offer(device)["version"] == 2
