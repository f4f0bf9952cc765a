"""The token of each device: it ends, and is renewed by the device's key."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from server.auth import token_hash
from server.db import reading, writing
from server.tables import Device, now
from shared.wire import SIGNATURE_HEADER
from tests.conftest import Fleet
from tests.device_keys import DeviceKey


def renew(fleet: Fleet, device: Any, counter: int, key: DeviceKey | None = None) -> Any:
    body = {"device_id": device["device_id"], "counter": counter}
    request = (key or device["key"]).signed("token", device["device_id"], body)
    return fleet.server.client.post("/device/v1/token", **request)


def with_token(device: Any, answer: Any) -> Any:
    return device | {"headers": {"Authorization": f"Bearer {answer.json()['token']}"}}


def expire(fleet: Fleet) -> None:
    with writing(fleet.server.app.state.engine) as session:
        session.execute(update(Device).values(token_expires_at=now() - timedelta(seconds=2)))


def standing(fleet: Fleet, device: Any) -> str:
    return str(fleet.call("GET", f"/api/v1/devices/{device['device_id']}")["standing"])


def test_only_the_hash_of_a_token_is_kept(fleet: Fleet) -> None:
    device = fleet.enrol(None)
    with reading(fleet.server.app.state.engine) as session:
        stored = session.scalars(select(Device)).one()
    assert stored.token_hash == token_hash(device["token"])
    assert device["token"] not in str(vars(stored))


def test_a_token_ends_and_the_key_brings_another(fleet: Fleet) -> None:
    device = fleet.enrol(None)
    expire(fleet)
    assert fleet.poll(device).status_code == 401
    renewed = renew(fleet, device, 1)
    assert renewed.status_code == 200
    assert fleet.poll(device).status_code == 401
    assert fleet.poll(with_token(device, renewed)).status_code == 200
    events = fleet.call("GET", "/api/v1/events?kind=device.token_renewed")["items"]
    assert [e["data"] for e in events] == [{"renewal": 1}]


@pytest.mark.parametrize(("days", "ends"), [(30, True), (0, False)])
def test_how_long_a_token_is_good_is_a_setting(
    serve: Callable[..., Any], days: float, ends: bool
) -> None:
    fleet = Fleet(serve(device_token_days=days), [])
    device = fleet.enrol(None)
    with reading(fleet.server.app.state.engine) as session:
        row = session.get_one(Device, device["device_id"])
    assert (row.token_expires_at is not None) is ends
    if row.token_expires_at and row.token_issued_at:
        lasts = (row.token_expires_at - row.token_issued_at) / timedelta(days=days)
        assert 0.9 <= lasts <= 1


@pytest.mark.parametrize("fault", ["none", "another key", "another device"])
def test_only_the_device_s_key_renews(fleet: Fleet, fault: str) -> None:
    device, other = fleet.enrol(None), fleet.enrol(None)
    body = {"device_id": device["device_id"], "counter": 1}
    signer = other["key"] if fault == "another key" else device["key"]
    named = other["device_id"] if fault == "another device" else device["device_id"]
    request = signer.signed("token", named, body)
    if fault == "none":
        del request["headers"][SIGNATURE_HEADER]
    answer = fleet.server.client.post("/device/v1/token", **request)
    code = "device.unsigned" if fault == "none" else "device.bad_signature"
    assert (answer.status_code, answer.json()["code"]) == (403, code)
    assert fleet.poll(device).status_code == 200


def test_nobody_is_told_a_token_of_a_device_that_there_is_not(fleet: Fleet) -> None:
    answer = renew(fleet, {"device_id": "nobody", "key": DeviceKey()}, 1)
    assert (answer.status_code, answer.json()["code"]) == (401, "device.unauthorized")


def test_a_renewal_whose_answer_was_lost_may_come_twice(fleet: Fleet) -> None:
    device = fleet.enrol(None)
    lost, again = renew(fleet, device, 1), renew(fleet, device, 1)
    assert fleet.poll(with_token(device, lost)).status_code == 401
    assert fleet.poll(with_token(device, again)).status_code == 200
    assert standing(fleet, device) == "accepted"


@pytest.mark.parametrize("counter", [1, 2])
def test_a_copy_of_the_device_is_found_by_its_renewals(fleet: Fleet, counter: int) -> None:
    device = fleet.enrol(None)
    renew(fleet, device, 1)
    mine = with_token(device, renew(fleet, device, 2))
    fleet.poll(mine)
    copy = renew(fleet, device, counter)
    assert (copy.status_code, copy.json()["code"]) == (409, "device.counter_reused")
    assert standing(fleet, device) == "cloned"
    assert fleet.poll(mine).json()["held"] == "cloned"
    refused = renew(fleet, device, 3)
    assert (refused.status_code, refused.json()["code"]) == (403, "device.cloned")
    fleet.call("POST", f"/api/v1/devices/{device['device_id']}/accept")
    assert renew(fleet, device, counter).status_code == 200


def test_a_decommissioned_device_gets_no_token(fleet: Fleet) -> None:
    device = fleet.enrol(None)
    fleet.call("POST", f"/api/v1/devices/{device['device_id']}/decommission")
    answer = renew(fleet, device, 1)
    assert (answer.status_code, answer.json()["code"]) == (403, "device.decommissioned")


def test_a_device_that_enrols_again_counts_its_renewals_anew(fleet: Fleet) -> None:
    device = fleet.enrol(None)
    fleet.poll(with_token(device, renew(fleet, device, 5)))
    again = fleet.enrol(None, key=device["key"])
    assert renew(fleet, again, 1).status_code == 200
