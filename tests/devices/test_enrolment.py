"""How devices come to be known: by tokens that end, and by keys of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from server.db import reading, writing
from server.tables import EnrolmentToken, Event, now
from shared.wire import SIGNATURE_HEADER, split_pinned
from tests.conftest import Fleet
from tests.device_keys import DeviceKey

ENROL = "/device/v1/enrol"
TOKENS = "/api/v1/enrolment_tokens"


def make(fleet: Fleet, **body: Any) -> Any:
    """A token; `secret` is what a device sends of it."""
    made = fleet.call("POST", TOKENS, json={"name": "t", **body})
    return made | {"secret": split_pinned(made["token"])[0]}


def refusal(fleet: Fleet, key: DeviceKey, **body: Any) -> tuple[int, str]:
    request = key.enrolment({"name": "cam", "token": "enrol-me-please", **body})
    answer = fleet.server.client.post(ENROL, **request)
    return answer.status_code, answer.json()["code"]


def devices(fleet: Fleet) -> list[Any]:
    return list(fleet.call("GET", "/api/v1/devices")["items"])


def kinds(fleet: Fleet) -> list[str]:
    items = fleet.call("GET", "/api/v1/events?kind=device&order=oldest")["items"]
    return [item["kind"] for item in items]


def test_a_token_names_the_first_root_and_is_kept_as_a_hash(fleet: Fleet) -> None:
    made = make(fleet)
    state = fleet.server.app.state
    with reading(state.engine) as session:
        assert split_pinned(made["token"])[1] == state.trust.root_sha256(session)
        stored = session.scalar(select(EnrolmentToken))
        told = json.dumps([e.data for e in session.scalars(select(Event))])
    assert stored is not None
    assert made["secret"] not in str(vars(stored))
    assert made["secret"] not in told
    shown = fleet.call("GET", f"{TOKENS}/{made['id']}")
    assert made["secret"] not in json.dumps(shown)
    assert (shown["state"], shown["max_uses"], shown["uses"]) == ("active", 1, 0)


def test_the_answer_brings_the_roots_in_order(fleet: Fleet) -> None:
    device = fleet.enrol(None)
    with reading(fleet.server.app.state.engine) as session:
        roots = [content.decode() for content in fleet.server.app.state.trust.roots(session)]
    assert device["roots"] == roots
    assert roots


def test_a_token_is_good_for_so_many_devices(fleet: Fleet) -> None:
    token = make(fleet, max_uses=2, tags=["line3"])["secret"]
    first, second = fleet.enrol(None, token=token), fleet.enrol(None, token=token)
    assert first["device_id"] != second["device_id"]
    assert refusal(fleet, DeviceKey(), token=token) == (403, "device.enrolment_token_used")
    assert [d["tags"] for d in devices(fleet)] == [["line3"], ["line3"]]
    (shown,) = fleet.call("GET", TOKENS)["items"]
    assert (shown["state"], shown["uses"]) == ("used", 2)


def test_an_enrolment_whose_answer_was_lost_is_repeated(fleet: Fleet) -> None:
    key, token = DeviceKey(), make(fleet)["secret"]
    lost = fleet.enrol(None, key=key, token=token)
    again = fleet.enrol(None, key=key, token=token)
    assert again["device_id"] == lost["device_id"]
    assert fleet.poll(lost).status_code == 401
    assert fleet.poll(again).status_code == 200
    assert kinds(fleet).count("device.enrolled") == 1


def test_once_the_device_has_come_a_used_token_is_worth_nothing(fleet: Fleet) -> None:
    key, token = DeviceKey(), make(fleet)["secret"]
    device = fleet.enrol(None, key=key, token=token)
    fleet.poll(device)
    assert refusal(fleet, key, token=token) == (403, "device.enrolment_token_used")
    assert fleet.poll(device).status_code == 200


@pytest.mark.parametrize(("end", "state"), [("expired", "expired"), ("revoked", "revoked")])
def test_a_token_that_has_ended_is_refused(fleet: Fleet, end: str, state: str) -> None:
    made = make(fleet, max_uses=None)
    if end == "revoked":
        fleet.call("POST", f"{TOKENS}/{made['id']}/revoke")
    else:
        with writing(fleet.server.app.state.engine) as session:
            session.execute(update(EnrolmentToken).values(expires_at=now() - timedelta(seconds=1)))
    assert fleet.call("GET", f"{TOKENS}/{made['id']}")["state"] == state
    code = f"device.enrolment_token_{end}"
    assert refusal(fleet, DeviceKey(), token=made["secret"]) == (403, code)
    assert devices(fleet) == []


def test_a_token_that_nobody_made_is_refused(serve: Callable[..., Any]) -> None:
    closed = Fleet(serve(enrolment_token=None), [])
    assert refusal(closed, DeviceKey()) == (403, "device.enrolment_closed")
    token = make(closed)["secret"]
    assert refusal(closed, DeviceKey()) == (403, "device.bad_enrolment_token")
    closed.enrol(None, token=token)


def test_the_token_of_the_setting_may_ask_for_acceptance(serve: Callable[..., Any]) -> None:
    fleet = Fleet(serve(enrolment_accept="by_hand"), [])
    assert fleet.enrol(None)["pending"] is True


@pytest.mark.parametrize("fault", ["none", "another body", "another key", "no base64", "no key"])
def test_an_enrolment_that_its_key_has_not_signed_is_refused(fleet: Fleet, fault: str) -> None:
    key = DeviceKey()
    request = key.enrolment({"name": "cam", "token": "enrol-me-please"})
    if fault == "none":
        del request["headers"][SIGNATURE_HEADER]
    elif fault == "another body":
        request["content"] = request["content"].replace(b"cam", b"can")
    elif fault == "another key":
        request["content"] = request["content"].replace(
            key.public.encode(), DeviceKey().public.encode()
        )
    elif fault == "no base64":
        request["headers"][SIGNATURE_HEADER] = "?"
    else:
        request = key.signed("enrol", "", {"name": "cam", "token": "enrol-me-please"})
    codes = {"none": "device.unsigned", "no key": "device.key_unknown"}
    answer = fleet.server.client.post(ENROL, **request)
    wanted = (403, codes.get(fault, "device.bad_signature"))
    assert (answer.status_code, answer.json()["code"]) == wanted
    assert devices(fleet) == []


def test_the_same_key_is_the_same_device_with_another_token(fleet: Fleet) -> None:
    key = DeviceKey()
    first = fleet.enrol(fleet.digests[0], key=key)
    fleet.report(first, None, fleet.digests[0])
    again = fleet.enrol(fleet.digests[1], key=key)
    assert again["device_id"] == first["device_id"]
    assert again["counter"] == 1
    assert fleet.poll(first).status_code == 401
    assert "device.reenrolled" in kinds(fleet)
    assert fleet.report(again, None, fleet.digests[1]).status_code == 200
    (shown,) = devices(fleet)
    assert shown["models"][0]["weights_digest"] == fleet.digests[1]


def test_an_enrolment_that_is_played_again_changes_nothing_of_what_was_reported(
    fleet: Fleet,
) -> None:
    """It has no counter. So the device is asked, and only what it reports counts."""
    key, (old, new) = DeviceKey(), fleet.digests
    told = {"key": key, "attributes": {"line": "3"}}
    device = fleet.enrol(old, **told)
    fleet.report(device, None, new, attributes={"line": "4"})
    heard = fleet.poll(device).headers["etag"]
    again = fleet.enrol(old, **told)
    (shown,) = devices(fleet)
    assert shown["models"][0]["weights_digest"] == new
    assert shown["attributes"] == {"line": "4"}
    runs = fleet.call("GET", "/api/v1/lineage?model=m&version=2")["items"]
    assert [run["weights_digest"] for run in runs if run["until"] is None] == [new]
    asked = fleet.poll(again, heard)
    assert (asked.status_code, asked.json()["report"]) == (200, True)
    fleet.report(again, None, new, state="idle")
    assert "report" not in fleet.poll(again).json()


def test_a_device_that_waits_is_offered_nothing_until_it_is_accepted(fleet: Fleet) -> None:
    sha = fleet.publish(1, 2, b"the package")
    rollout = fleet.roll_out(2)
    token = make(fleet, accept="by_hand")["secret"]
    device = fleet.enrol(fleet.digests[0], token=token)
    assert device["pending"] is True
    waiting = fleet.poll(device)
    assert (waiting.json()["models"], waiting.json()["held"]) == ([], "not_accepted")
    assert float(waiting.headers["weft-poll-interval"]) > 4 * 54 - 1
    assert fleet.poll(device, waiting.headers["etag"]).status_code == 304
    for path in (f"/device/v1/packages/{sha}", "/device/v1/metadata/m"):
        refused = fleet.server.client.get(path, headers=device["headers"])
        assert (refused.status_code, refused.json()["code"]) == (403, "device.not_accepted")
    report = fleet.report(device, None, fleet.digests[0])
    assert (report.status_code, report.json()["code"]) == (403, "device.not_accepted")
    assert fleet.call("GET", f"/api/v1/rollouts/{rollout['id']}")["assignments"] == {}

    shown = fleet.call("POST", f"/api/v1/devices/{device['device_id']}/accept")
    assert shown["standing"] == "accepted"
    after = fleet.poll(device, waiting.headers["etag"])
    assert ("held" in after.json(), after.json()["models"][0]["version"]) == (False, 2)
    fleet.call("POST", f"/api/v1/devices/{device['device_id']}/accept")
    assert kinds(fleet).count("device.accepted") == 1


EXPECTED = "/api/v1/preauthorisations"


def test_an_expected_device_need_not_wait(fleet: Fleet) -> None:
    token, key = make(fleet, accept="by_hand", max_uses=None)["secret"], DeviceKey()
    fleet.call("POST", EXPECTED, json={"key": key.public, "tags": ["factory"]})
    fleet.call("POST", EXPECTED, json={"name": "gate-1"})
    by_key = fleet.enrol(None, name="any", key=key, token=token)
    by_name = fleet.enrol(None, name="gate-1", token=token)
    second = fleet.enrol(None, name="gate-1", token=token)
    stranger = fleet.enrol(None, name="gate-2", token=token)
    waits = [d["pending"] for d in (by_key, by_name, second, stranger)]
    assert waits == [False, False, True, True]
    assert fleet.call("GET", f"/api/v1/devices/{by_key['device_id']}")["tags"] == ["factory"]
    came = {row["name"]: row["device_id"] for row in fleet.call("GET", EXPECTED)["items"]}
    assert came == {None: by_key["device_id"], "gate-1": by_name["device_id"]}


def test_a_name_and_a_key_must_both_fit(fleet: Fleet) -> None:
    token, key = make(fleet, accept="by_hand", max_uses=None)["secret"], DeviceKey()
    fleet.call("POST", EXPECTED, json={"key": key.public, "name": "gate-1"})
    assert fleet.enrol(None, name="gate-1", token=token)["pending"] is True
    assert fleet.enrol(None, name="gate-1", key=key, token=token)["pending"] is False


def test_one_device_is_expected_once_and_may_be_withdrawn(fleet: Fleet) -> None:
    row = fleet.call("POST", EXPECTED, json={"name": "gate-1"})
    again = fleet.call("POST", EXPECTED, json={"name": "gate-1"}, status=409)
    assert again["code"] == "device.preauthorised"
    assert fleet.server.client.delete(f"{EXPECTED}/{row['id']}").status_code == 204
    gone = fleet.server.client.delete(f"{EXPECTED}/{row['id']}")
    assert gone.json()["code"] == "device.preauthorisation_not_found"
    token = make(fleet, accept="by_hand")["secret"]
    assert fleet.enrol(None, name="gate-1", token=token)["pending"] is True


def test_a_key_that_is_there_is_not_expected(fleet: Fleet) -> None:
    key = DeviceKey()
    fleet.enrol(None, key=key)
    taken = fleet.call("POST", EXPECTED, json={"key": key.public}, status=409)
    assert taken["code"] == "device.key_taken"


def test_a_new_key_needs_a_token_for_that_device(fleet: Fleet) -> None:
    old, new = DeviceKey(), DeviceKey()
    device = fleet.enrol(fleet.digests[0], key=old)
    path = f"/api/v1/devices/{device['device_id']}/reenrol"
    first, second = (split_pinned(fleet.call("POST", path)["token"])[0] for _ in "12")
    assert refusal(fleet, new, token=first) == (403, "device.enrolment_token_revoked")
    again = fleet.enrol(fleet.digests[0], key=new, token=second)
    assert again["device_id"] == device["device_id"]
    assert fleet.poll(device).status_code == 401
    assert refusal(fleet, old) == (403, "device.key_retired")
    assert fleet.report(again | {"key": old}, None, fleet.digests[0]).status_code == 403
    assert fleet.report(again, None, fleet.digests[0], counter=1).status_code == 200
    assert len(devices(fleet)) == 1


def test_a_token_for_one_device_is_not_for_another_that_is_known(fleet: Fleet) -> None:
    device, other = fleet.enrol(None), fleet.enrol(None)
    made = fleet.call("POST", f"/api/v1/devices/{device['device_id']}/reenrol")
    token = split_pinned(made["token"])[0]
    assert refusal(fleet, other["key"], token=token) == (409, "device.key_taken")
    assert fleet.call("GET", f"{TOKENS}/{made['id']}")["uses"] == 0


def test_a_decommissioned_device_is_worth_nothing_and_its_history_stays(fleet: Fleet) -> None:
    fleet.publish(1, 2, b"the package")
    device = fleet.enrol(fleet.digests[0])
    rollout = fleet.roll_out(2)
    fleet.offer(device)
    path = f"/api/v1/devices/{device['device_id']}"
    token = split_pinned(fleet.call("POST", f"{path}/reenrol")["token"])[0]
    shown = fleet.call("POST", f"{path}/decommission")
    assert (shown["standing"], shown["models"]) == ("decommissioned", [])
    assert fleet.poll(device).status_code == 401
    assert refusal(fleet, device["key"]) == (403, "device.decommissioned")
    assert refusal(fleet, DeviceKey(), token=token) == (403, "device.enrolment_token_revoked")
    for order in ("accept", "reenrol"):
        refused = fleet.call("POST", f"{path}/{order}", status=403)
        assert refused["code"] == "device.decommissioned"
    shown = fleet.call("GET", f"/api/v1/rollouts/{rollout['id']}")
    assert (shown["reason"]["code"], shown["assignments"]) == ("no_devices", {"aborted": 1})
    (run,) = fleet.call("GET", "/api/v1/lineage?model=m&version=1")["items"]
    assert run["until"] is not None
    fleet.call("POST", f"{path}/decommission")
    assert kinds(fleet).count("device.decommissioned") == 1
