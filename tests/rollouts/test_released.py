"""Only released versions are sent: refused, released by being deployed, listed with the offer."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from server.db import reading, writing
from server.publish.expiry import expire_packages
from server.tables import Model, Package, TrustMetadata, Version, now
from shared.metadata import PACKAGES, TARGETS, package_path, unpack, version_path


def told(fleet: Any) -> dict[str, Any]:
    """What the metadata of the model say that a device is given that holds none, by role."""
    state = fleet.server.app.state
    with reading(state.engine) as session:
        packed = state.trust.answer(session, session.get_one(Model, 1), {})
    return {file.role: json.loads(file.content)["signed"] for file in unpack(packed or b"")}


def listed(fleet: Any, role: str) -> set[str]:
    return set(told(fleet)[role]["targets"])


def unlist(fleet: Any, number: int) -> None:
    """As targets do that were signed elsewhere, without the version."""
    with writing(fleet.server.app.state.engine) as session:
        session.execute(update(Version).where(Version.number == number).values(released_at=None))


@pytest.fixture
def careful(serve: Any, weights_file: Any) -> Any:
    """A fleet of a server on which nothing is released by being deployed."""
    from tests.conftest import Fleet

    fleet = Fleet(serve(auto_release=False), [weights_file(0), weights_file(1)])
    fleet.publish(1, 2, b"forward")
    return fleet


def test_deploying_releases_where_the_key_is_at_hand(fleet: Any) -> None:
    fleet.publish(1, 2, b"forward")
    fleet.roll_out(2)
    assert listed(fleet, TARGETS) == {version_path(2)}
    kinds = [event["kind"] for event in fleet.call("GET", "/api/v1/events")["items"]]
    assert kinds.index("rollout.started") < kinds.index("version.released")


def test_a_rollout_that_waits_for_its_start_releases_nothing(fleet: Any) -> None:
    ready = fleet.call(
        "POST", "/api/v1/rollouts", json={"model": "m", "version": 2, "start": False}
    )
    with reading(fleet.server.app.state.engine) as session:
        assert session.scalars(select(TrustMetadata)).all() == []
    fleet.call("POST", f"/api/v1/rollouts/{ready['id']}/start")
    assert listed(fleet, TARGETS) == {version_path(2)}


def test_what_is_not_released_is_refused_and_nothing_is_left_of_it(careful: Any) -> None:
    body = {"model": "m", "version": 2}
    refused = careful.call("POST", "/api/v1/rollouts", status=409, json=body)
    assert refused["code"] == "version.not_released"
    assert "weft release" in refused["todo"]
    assert careful.call("GET", "/api/v1/rollouts")["items"] == []
    ready = careful.call("POST", "/api/v1/rollouts", json=body | {"start": False})
    start = f"/api/v1/rollouts/{ready['id']}/start"
    assert careful.call("POST", start, status=409)["code"] == "version.not_released"
    careful.release(2)
    assert careful.call("POST", start)["state"] == "active"


def test_taking_back_leads_to_released_versions_only(careful: Any) -> None:
    device = careful.enrol(careful.digests[0])
    careful.release(2)
    rollout = careful.roll_out(2)
    careful.report(device, careful.offer(device)["assignment"], careful.digests[1])
    back = f"/api/v1/rollouts/{rollout['id']}/roll_back"
    assert careful.call("POST", back, status=409)["code"] == "version.not_released"
    assert careful.call("GET", f"/api/v1/rollouts/{rollout['id']}")["state"] == "finished"
    careful.release(1)
    assert careful.call("POST", back)["version"] == 1
    offer = careful.offer(device)
    assert (offer["version"], offer["rollback"]) == (1, True)


def test_an_offer_comes_with_its_package_listed(fleet: Any) -> None:
    sha256 = fleet.publish(1, 2, b"forward")
    device = fleet.enrol(fleet.digests[0])
    fleet.roll_out(2)
    assert listed(fleet, PACKAGES) == set()
    assert fleet.offer(device)["package"]["sha256"] == sha256
    (entry,) = told(fleet)[PACKAGES]["targets"].items()
    assert entry[0] == package_path(sha256)
    assert entry[1]["custom"] == {
        "base": fleet.digests[0],
        "result": fleet.digests[1],
        "method": "ka",
    }
    before = told(fleet)
    assert fleet.offer(fleet.enrol(fleet.digests[0]))["package"]["sha256"] == sha256
    assert told(fleet) == before


def test_packages_of_open_assignments_stay_listed(fleet: Any, weights_file: Any) -> None:
    old = fleet.enrol(fleet.digests[0])
    first = fleet.publish(1, 2, b"forward")
    fleet.roll_out(2)
    assert fleet.offer(old)["package"]["sha256"] == first
    later = []
    for n in range(6):
        digest = fleet._upload(weights_file(10 + n))
        later.append(fleet.publish(2, 3 + n, f"to {n}".encode()))
        fresh = fleet.enrol(fleet.digests[1], attributes={"n": str(n)})
        body = {"model": "m", "version": 3 + n, "filter": f"attr.n=={n}"}
        fleet.call("POST", "/api/v1/rollouts", json=body)
        offer = fleet.offer(fresh)
        assert offer["package"]["sha256"] == later[-1]
        fleet.report(fresh, offer["assignment"], digest)
    kept = [package_path(sha256) for sha256 in (first, *later[-3:])]
    assert listed(fleet, PACKAGES) == set(kept)


def test_an_offer_that_cannot_be_listed_is_none(fleet: Any, monkeypatch: Any) -> None:
    fleet.publish(1, 2, b"forward")
    device = fleet.enrol(fleet.digests[0])
    rollout = fleet.roll_out(2)

    def fail(*_: Any) -> None:
        raise OSError("no key")

    with monkeypatch.context() as patch:
        patch.setattr(fleet.server.app.state.trust, "ensure_listed", fail)
        assert fleet.poll(device).status_code == 500
    (row,) = fleet.call("GET", f"/api/v1/rollouts/{rollout['id']}/assignments")["items"]
    assert (row["state"], row["offered_at"]) == ("idle", None)
    assert fleet.offer(device)["package"] is not None


def test_chains_pass_through_released_versions_only(fleet: Any, weights_file: Any) -> None:
    digest = fleet._upload(weights_file(2))
    steps = [fleet.publish(1, 2, b"one"), fleet.publish(2, 3, b"two")]
    straight = fleet.publish(1, 3, b"much larger than those two")
    able = {"capabilities": {"chain": 8}}
    device = fleet.enrol(fleet.digests[0], **able)
    fleet.roll_out(3)
    offer = fleet.offer(device)
    assert (offer["package"]["sha256"], offer["chain"]) == (straight, None)
    fleet.report(device, offer["assignment"], digest)
    fleet.release(2)
    offer = fleet.offer(fleet.enrol(fleet.digests[0], **able))
    assert [package["sha256"] for package in offer["chain"]] == steps
    assert listed(fleet, PACKAGES) >= set(map(package_path, steps))


def test_what_is_unlisted_meanwhile_is_held_and_no_failure(fleet: Any) -> None:
    fleet.publish(1, 2, b"forward")
    device = fleet.enrol(fleet.digests[0])
    rollout = fleet.roll_out(2)
    unlist(fleet, 2)
    assert fleet.offer(device)["held"] == "not_released"
    shown = fleet.call("GET", f"/api/v1/rollouts/{rollout['id']}")
    assert shown["held"] == {"not_released": 1}
    fleet.release(2)
    assert fleet.offer(device)["package"] is not None


def test_what_was_deployed_before_there_were_releases_is_released_at_the_start(
    fleet: Any, serve: Any, weights_file: Any
) -> None:
    fleet._upload(weights_file(2))
    fleet.publish(1, 2, b"forward")
    device = fleet.enrol(fleet.digests[0])
    fleet.roll_out(3)
    fleet.roll_out(2)
    with writing(fleet.server.app.state.engine) as session:
        session.execute(delete(TrustMetadata))
        session.execute(update(Version).values(released_at=None))
    fleet.server.stop()
    fleet.server = serve()
    assert listed(fleet, TARGETS) == {version_path(2)}  # nobody joins the other any more
    assert fleet.offer(device)["package"] is not None


def test_weights_in_a_slot_need_the_release_too(fleet: Any) -> None:
    device = fleet.enrol(models={"m": {"slots": fleet.digests, "current": fleet.digests[0]}})
    fleet.roll_out(2)
    unlist(fleet, 2)
    assert fleet.offer(device)["held"] == "not_released"


def test_retention_keeps_what_is_listed(fleet: Any, weights_file: Any) -> None:
    """The way to a version that nobody is on any more, while the newest is another one."""
    state = fleet.server.app.state
    offered, never = fleet.publish(1, 2, b"forward"), fleet.publish(1, 2, b"a larger one")
    fleet._upload(weights_file(2))
    device = fleet.enrol(fleet.digests[0])
    rollout = fleet.roll_out(2)
    fleet.poll(device)
    fleet.call("POST", f"/api/v1/rollouts/{rollout['id']}/abort")
    fleet.roll_out(3)
    gone = {"state": "idle", "weights_digest": None, "slots": []}
    fleet.report(device, None, fleet.digests[0], **gone)
    expire_packages(state.engine, state.blobs, 1, 1, now() + timedelta(days=9))
    with reading(state.engine) as session:
        kept = {row.sha256: row.state for row in session.scalars(select(Package))}
    assert (kept[offered], kept[never]) == ("published", "removed")


def test_what_devices_may_still_join_stays_listed(fleet: Any, weights_file: Any) -> None:
    old = {"model": "m", "version": 1, "filter": "attr.line==1"}
    fleet.enrol(fleet.digests[0], attributes={"line": "1"})
    fleet.call("POST", "/api/v1/rollouts", json=old)
    for n in range(9):
        fleet._upload(weights_file(20 + n))
        body = {"model": "m", "version": 3 + n, "filter": "attr.line==2"}
        fleet.call("POST", "/api/v1/rollouts", json=body)
    assert version_path(1) in listed(fleet, TARGETS)
