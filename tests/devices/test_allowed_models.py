"""Devices name their models themselves; what they were let in for bounds what they may name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from server.db import reading
from server.tables import Device, DeviceModel, Run, SignedReport
from shared.wire import split_pinned
from tests.conftest import Fleet
from tests.device_keys import DeviceKey

NOT_ALLOWED = (403, "device.model_not_allowed")
OTHER = {"other": {"slots": [], "current": None}}
BOTH = {"m": {"slots": [], "current": None}, **OTHER}


def token(fleet: Fleet, **body: Any) -> str:
    made = fleet.call("POST", "/api/v1/enrolment_tokens", json={"name": "t", **body})
    return str(split_pinned(made["token"])[0])


def refusal(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def try_to_enrol(fleet: Fleet, **body: Any) -> Any:
    wanted = {"name": "cam", "token": "enrol-me-please"} | body
    return fleet.server.client.post("/device/v1/enrol", **DeviceKey().enrolment(wanted))


def shown(fleet: Fleet, device: Any) -> Any:
    return fleet.call("GET", f"/api/v1/devices/{device['device_id']}")


def allow(fleet: Fleet, device: Any, models: list[str] | None) -> Any:
    path = f"/api/v1/devices/{device['device_id']}/allowed_models"
    return fleet.call("PUT", path, json={"models": models})


def rows(fleet: Fleet, *tables: Any) -> list[int]:
    with reading(fleet.server.app.state.engine) as session:
        return [len(session.scalars(select(table)).all()) for table in tables]


def test_a_token_for_some_models_lets_no_device_in_that_claims_another(fleet: Fleet) -> None:
    secret = token(fleet, models=["m"])
    for models in (OTHER, BOTH):
        answer = try_to_enrol(fleet, token=secret, models=models)
        assert refusal(answer) == NOT_ALLOWED
        assert "other" in answer.json()["detail"]
    assert rows(fleet, Device, DeviceModel) == [0, 0]
    (made,) = fleet.call("GET", "/api/v1/enrolment_tokens")["items"]
    assert (made["models"], made["uses"]) == (["m"], 0)
    device = fleet.enrol(None, token=secret)
    assert shown(fleet, device)["allowed_models"] == ["m"]


def test_without_bounds_a_device_may_claim_any_model(fleet: Fleet) -> None:
    device = fleet.enrol(None, token=token(fleet), models=BOTH)
    assert shown(fleet, device)["allowed_models"] is None


def test_a_report_of_another_model_is_refused_and_later_ones_count(fleet: Fleet) -> None:
    device = fleet.enrol(None, token=token(fleet, models=["m"]))
    digest = fleet.digests[0]
    before = rows(fleet, DeviceModel, Run, SignedReport)
    assert refusal(fleet.report(device, None, digest, model="other")) == NOT_ALLOWED
    assert rows(fleet, DeviceModel, Run, SignedReport) == before
    assert fleet.report(device, None, digest).status_code == 200
    assert shown(fleet, device)["standing"] == "accepted"


def test_what_it_may_not_run_it_cannot_read(fleet: Fleet) -> None:
    sha256 = fleet.publish(None, 1, b"weights")
    fleet.release(1)
    device = fleet.enrol(None, token=token(fleet, models=["other"]), models=OTHER)
    fleet.report(device, None, fleet.digests[0])
    get = fleet.server.client.get
    metadata = get("/device/v1/metadata/m", headers=device["headers"])
    assert refusal(metadata) == (404, "device.model_not_found")
    package = get(f"/device/v1/packages/{sha256}", headers=device["headers"])
    assert refusal(package) == (404, "device.package_not_found")
    fleet.roll_out(1)
    assert fleet.poll(device).json().get("models", []) == []


def test_an_expected_device_is_bound_as_well_as_its_token_says(fleet: Fleet) -> None:
    expected = {"name": "cam", "models": ["m", "spare"]}
    made = fleet.call("POST", "/api/v1/preauthorisations", json=expected)
    assert made["models"] == ["m", "spare"]
    secret = token(fleet, models=["m", "other"])
    assert refusal(try_to_enrol(fleet, token=secret, models=OTHER)) == NOT_ALLOWED
    (row,) = fleet.call("GET", "/api/v1/preauthorisations")["items"]
    assert row["device_id"] is None
    device = fleet.enrol(None, token=secret)
    assert shown(fleet, device)["allowed_models"] == ["m"]


def test_the_token_of_the_setting_may_be_for_some_models(
    serve: Callable[..., Any], weights_file: Callable[..., Path]
) -> None:
    fleet = Fleet(serve(enrolment_models=("m",)), [weights_file(0)])
    assert refusal(try_to_enrol(fleet, models=OTHER)) == NOT_ALLOWED
    assert shown(fleet, fleet.enrol(None))["allowed_models"] == ["m"]


def test_enrolling_again_changes_nothing_of_what_it_may_run(fleet: Fleet) -> None:
    key = DeviceKey()
    device = fleet.enrol(None, key=key, token=token(fleet, models=["m"]))
    fleet.poll(device)
    fleet.enrol(None, key=key, token=token(fleet))
    again = fleet.call("POST", f"/api/v1/devices/{device['device_id']}/reenrol", json={})
    fleet.enrol(None, key=DeviceKey(), token=split_pinned(again["token"])[0])
    assert shown(fleet, device)["allowed_models"] == ["m"]
    request = key.enrolment({"name": "cam", "token": "enrol-me-please", "models": OTHER})
    assert fleet.server.client.post("/device/v1/enrol", **request).status_code == 403


def test_a_model_that_is_taken_away_is_not_offered_any_more(fleet: Fleet) -> None:
    device = fleet.enrol(fleet.digests[0])
    fleet.publish(1, 2, b"package")
    rollout = fleet.roll_out(2)
    assert fleet.poll(device).json()["models"]
    assert allow(fleet, device, ["other"])["models"] == []
    assert fleet.poll(device).json().get("models", []) == []
    (assignment,) = fleet.call("GET", f"/api/v1/rollouts/{rollout['id']}/assignments")["items"]
    assert assignment["state"] == "aborted"
    events = fleet.call("GET", "/api/v1/events?kind=device.changed")["items"]
    assert [e["data"] for e in events] == [
        {"allowed_models": ["other"], "before": {"allowed_models": None}}
    ]
    assert refusal(fleet.report(device, None, fleet.digests[0])) == NOT_ALLOWED


@pytest.mark.parametrize("models", [["m"], None])
def test_a_model_that_is_given_back_is_asked_for(fleet: Fleet, models: list[str] | None) -> None:
    device = fleet.enrol(fleet.digests[0])
    etag = fleet.poll(device).headers["etag"]
    allow(fleet, device, ["other"])
    allow(fleet, device, models)
    answer = fleet.poll(device, etag)
    assert answer.json()["report"] is True
    assert fleet.report(device, None, fleet.digests[0]).status_code == 200
    assert [held["model"] for held in shown(fleet, device)["models"]] == ["m"]
    assert fleet.poll(device).json().get("report", False) is False


@pytest.mark.parametrize("models", [[], ["no such/name"], "m"])
def test_bounds_that_are_none_are_refused(fleet: Fleet, models: Any) -> None:
    body = {"name": "t", "models": models}
    for path in ("enrolment_tokens", "preauthorisations"):
        answer = fleet.server.client.post(f"/api/v1/{path}", json=body)
        assert refusal(answer) == (422, "request.invalid")


def test_a_decommissioned_device_is_bound_to_nothing_any_more(fleet: Fleet) -> None:
    device = fleet.enrol(None)
    fleet.call("POST", f"/api/v1/devices/{device['device_id']}/decommission")
    path = f"/api/v1/devices/{device['device_id']}/allowed_models"
    fleet.call("PUT", path, 403, json={"models": ["m"]})
