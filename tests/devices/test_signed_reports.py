"""Only what a device's key has signed counts; it is kept, so that what runs can be proven."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.wire import SIGNATURE_HEADER
from tests.conftest import Fleet
from tests.device_keys import DeviceKey, has_signed

REPORTS = "/device/v1/reports"


def report_of(digest: str, counter: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "counter": counter,
        "model": "m",
        "result": "committed",
        "state": "committed",
        "weights_digest": digest,
        "slots": [digest],
    } | changes


def shown(fleet: Fleet, device: Any) -> Any:
    return fleet.call("GET", f"/api/v1/devices/{device['device_id']}")


def kept(fleet: Fleet, device: Any, query: str = "") -> list[Any]:
    path = f"/api/v1/devices/{device['device_id']}/reports{query}"
    return list(fleet.call("GET", path)["items"])


def everything(fleet: Fleet, device: Any) -> Any:
    """All that a report could change."""
    one = shown(fleet, device)
    del one["last_seen_at"]
    return one, kept(fleet, device), fleet.call("GET", "/api/v1/events?order=oldest")["items"]


@pytest.mark.parametrize(
    "fault", ["none", "another body", "another key", "another device", "another purpose", "cut"]
)
def test_a_report_that_its_key_has_not_signed_changes_nothing(fleet: Fleet, fault: str) -> None:
    device, other = fleet.enrol(fleet.digests[0]), fleet.enrol(fleet.digests[0])
    before = everything(fleet, device)
    body = report_of(fleet.digests[1])
    signer = DeviceKey() if fault == "another key" else device["key"]
    named = other["device_id"] if fault == "another device" else device["device_id"]
    what = "token" if fault == "another purpose" else "report"
    request = signer.signed(what, named, body, device["headers"])
    if fault == "none":
        del request["headers"][SIGNATURE_HEADER]
    elif fault == "another body":
        request["content"] = json.dumps(report_of(fleet.digests[0])).encode()
    elif fault == "cut":
        request["headers"][SIGNATURE_HEADER] = request["headers"][SIGNATURE_HEADER][:-4]
    refused = fleet.server.client.post(REPORTS, **request)
    code = "device.unsigned" if fault == "none" else "device.bad_signature"
    assert (refused.status_code, refused.json()["code"]) == (403, code)
    assert everything(fleet, device) == before


def test_a_report_is_kept_as_it_came(fleet: Fleet) -> None:
    device = fleet.enrol(fleet.digests[0])
    fleet.report(device, None, fleet.digests[1])
    (found,) = kept(fleet, device)
    assert found["public_key"] == device["key"].public == shown(fleet, device)["public_key"]
    body = found["body"].encode()
    assert has_signed(found["public_key"], "report", device["device_id"], body, found["signature"])
    assert json.loads(body)["weights_digest"] == found["weights_digest"] == fleet.digests[1]
    assert found["in_use"] is True


def test_an_event_leads_to_the_report_that_it_tells_of(fleet: Fleet) -> None:
    device = fleet.enrol(fleet.digests[0])
    fleet.report(device, None, fleet.digests[1], counter=4)
    (event,) = fleet.call("GET", "/api/v1/events?kind=device.reported")["items"]
    assert event["data"]["counter"] == kept(fleet, device)[0]["counter"] == 4


def test_the_report_that_tells_what_is_in_use_can_be_asked_for(fleet: Fleet) -> None:
    device = fleet.enrol(fleet.digests[0])
    fleet.report(device, None, fleet.digests[1])
    fleet.report(device, None, fleet.digests[1], state="idle")
    fleet.report(device, None, fleet.digests[0])
    assert [r["counter"] for r in kept(fleet, device)] == [3, 2, 1]
    assert [r["counter"] for r in kept(fleet, device, "?in_use=true")] == [3]
    assert [r["counter"] for r in kept(fleet, device, "?in_use=false")] == [2, 1]
    assert kept(fleet, device, "?model=other") == []


def test_a_report_taken_before_gets_the_same_answer_whatever_came_since(fleet: Fleet) -> None:
    device = fleet.enrol(fleet.digests[0])
    for _ in range(2):
        assert fleet.report(device, None, fleet.digests[0], counter=7).status_code == 200
    fleet.report(device, None, fleet.digests[1], counter=8)
    assert fleet.report(device, None, fleet.digests[0], counter=7).status_code == 200
    assert [r["counter"] for r in kept(fleet, device)] == [8, 7]
    assert shown(fleet, device)["models"][0]["weights_digest"] == fleet.digests[1]
    assert shown(fleet, device)["standing"] == "accepted"


@pytest.mark.parametrize("counter", [7, 6])
def test_one_counter_under_two_reports_holds_the_device(fleet: Fleet, counter: int) -> None:
    fleet.publish(1, 2, b"the package")
    device = fleet.enrol(fleet.digests[0])
    fleet.report(device, None, fleet.digests[0], counter=7)
    fleet.roll_out(2)
    sha = fleet.offer(device)["package"]["sha256"]
    etag = fleet.poll(device).headers["etag"]
    conflict = fleet.report(device, None, fleet.digests[1], counter=counter)
    assert (conflict.status_code, conflict.json()["code"]) == (409, "device.counter_reused")
    assert shown(fleet, device)["standing"] == "cloned"
    assert shown(fleet, device)["models"][0]["weights_digest"] == fleet.digests[0]
    assert [r["counter"] for r in kept(fleet, device)] == [7]
    (event,) = fleet.call("GET", "/api/v1/events?kind=device.cloned")["items"]
    assert event["data"] == {"counter": counter, "last_counter": 7, "model": "m"}
    held = fleet.poll(device, etag)
    assert held.json()["held"] == "cloned"
    assert [(m["held"], "package" in m) for m in held.json()["models"]] == [("cloned", False)]
    package = fleet.server.client.get(f"/device/v1/packages/{sha}", headers=device["headers"])
    assert (package.status_code, package.json()["code"]) == (403, "device.cloned")
    later = fleet.report(device, None, fleet.digests[1], counter=9)
    assert (later.status_code, later.json()["code"]) == (403, "device.cloned")
    assert shown(fleet, device)["models"][0]["weights_digest"] == fleet.digests[0]


def cloned(fleet: Fleet) -> Any:
    device = fleet.enrol(fleet.digests[0])
    fleet.report(device, None, fleet.digests[0], counter=7)
    fleet.report(device, None, fleet.digests[1], counter=7)
    return device


def test_an_operator_who_knows_of_one_device_alone_lets_it_go_on(fleet: Fleet) -> None:
    device = cloned(fleet)
    path = f"/api/v1/devices/{device['device_id']}"
    assert fleet.call("POST", f"{path}/accept")["standing"] == "accepted"
    assert fleet.report(device, None, fleet.digests[1], counter=7).status_code == 200
    assert shown(fleet, device)["models"][0]["weights_digest"] == fleet.digests[1]
    conflict = fleet.report(device, None, fleet.digests[0], counter=5)
    assert conflict.json()["code"] == "device.counter_reused"
    assert shown(fleet, device)["standing"] == "cloned"


def test_what_was_reported_before_is_not_taken_twice_after_that(fleet: Fleet) -> None:
    device = cloned(fleet)
    fleet.call("POST", f"/api/v1/devices/{device['device_id']}/accept")
    fleet.report(device, None, fleet.digests[1], counter=3)
    assert fleet.report(device, None, fleet.digests[0], counter=7).status_code == 200
    assert shown(fleet, device)["models"][0]["weights_digest"] == fleet.digests[1]


def test_a_new_key_shuts_the_copy_out(fleet: Fleet) -> None:
    from shared.wire import split_pinned

    copy = cloned(fleet)
    made = fleet.call("POST", f"/api/v1/devices/{copy['device_id']}/reenrol")
    assert shown(fleet, copy)["standing"] == "cloned"
    right = fleet.enrol(fleet.digests[1], token=split_pinned(made["token"])[0])
    assert right["device_id"] == copy["device_id"]
    assert shown(fleet, right)["standing"] == "accepted"
    assert fleet.poll(copy).status_code == 401
    assert fleet.report(right, None, fleet.digests[1], counter=1).status_code == 200


def test_enrolling_again_with_the_same_key_is_no_way_out(fleet: Fleet) -> None:
    device = cloned(fleet)
    again = fleet.enrol(fleet.digests[0], key=device["key"])
    assert shown(fleet, device)["standing"] == "cloned"
    assert fleet.poll(again).json()["held"] == "cloned"
