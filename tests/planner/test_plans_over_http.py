"""What devices are offered, and what operators see of it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, select

from server.db import reading
from server.planner import offers
from server.tables import Assignment, Device, DeviceModel, Package, Version

UNKNOWN = "f" * 64


@pytest.fixture
def three(depot: Any, weights_file: Any) -> Any:
    """Three versions, and a small package for each step."""
    depot.upload(weights_file(2))
    depot.steps = [depot.fleet.publish(n, n + 1, f"step {n}".encode()) for n in (1, 2)]
    depot.fleet.release(2)
    return depot


def test_a_device_two_versions_behind_gets_both_packages(three: Any) -> None:
    device = three.enrol(1)
    rollout = three.fleet.roll_out(3)
    offer = three.fleet.offer(device)
    assert (offer["package"], offer["held"]) == (None, None)
    assert [package["sha256"] for package in offer["chain"]] == three.steps
    assert [package["base_digest"] for package in offer["chain"]] == three.digests[:2]
    ids = [three.packages()[(n, n + 1, "ka")]["id"] for n in (1, 2)]
    told = three.told("assignment.offered", device)
    assert told == [{"way": "chain", "bytes": 12, "packages": ids}]
    seen = three.assignment(device, rollout)
    assert (seen["package"], seen["state"]) == (three.steps[-1], "offered")
    assert (seen["chain"], seen["size_bytes"]) == (ids, 12)


def test_a_device_that_knows_no_chains_gets_a_lossless_package(three: Any) -> None:
    device = three.enrol(1, chain=1)
    three.fleet.roll_out(3)
    assert three.fleet.offer(device)["held"] == "package_being_built"
    offer = three.settled_offer(device)
    assert (offer["chain"], offer["package"]["method"]) == (None, "xor")
    assert offer["package"]["base_digest"] == three.digests[0]
    held, offered = (three.told(f"assignment.{kind}", device) for kind in ("held", "offered"))
    assert held == [{"reason": "package_being_built", "method": "xor"}]
    assert (offered[0]["way"], offered[0]["bytes"]) == ("lossless", offer["package"]["size"])


def test_a_full_download_above_the_budget_is_held_and_never_sent(depot: Any) -> None:
    device = depot.enrol(None)
    depot.allow(device, 100)
    rollout = depot.fleet.roll_out(2)
    held = depot.settled_offer(device)
    full = depot.package_between(None, 2, "full")
    assert (held["held"], held["package"], held["chain"]) == ("over_budget", None, None)
    figures = {"bytes": full["size_bytes"], "budget": 100}
    seen = depot.assignment(device, rollout)
    assert (seen["held"], seen["held_detail"]) == ("over_budget", figures)
    assert depot.told("assignment.held", device)[-1] == {"reason": "over_budget", **figures}
    assert depot.told("assignment.offered", device) == []

    depot.allow(device, full["size_bytes"])
    assert depot.fleet.offer(device)["package"]["sha256"] == full["sha256"]
    (told,) = depot.told("assignment.offered", device)
    assert told == {"way": "full", "bytes": full["size_bytes"], "packages": [full["id"]]}


def test_a_full_package_that_exists_is_weighed_like_any_other(depot: Any) -> None:
    depot.fleet.publish(None, 2, b"x" * 101)
    device = depot.enrol(None)
    depot.allow(device, 100)
    depot.fleet.roll_out(2)
    assert depot.fleet.offer(device)["held"] == "over_budget"


def test_the_servers_own_budget_counts_where_a_device_has_none(
    serve: Any, weights_file: Any
) -> None:
    from tests.conftest import Fleet

    fleet = Fleet(serve(update_budget=10), [weights_file(0), weights_file(1)])
    fleet.publish(None, 2, b"x" * 11)
    device = fleet.enrol(None)
    fleet.roll_out(2)
    assert fleet.offer(device)["held"] == "over_budget"


def test_unknown_weights_are_seen_in_history(depot: Any) -> None:
    device = depot.enrol(UNKNOWN)
    depot.allow(device, 100)
    depot.fleet.roll_out(2)
    assert depot.settled_offer(device)["held"] == "over_budget"
    (_, told) = depot.told("assignment.held", device)
    assert told["unknown_weights"] == UNKNOWN
    depot.allow(device, None)
    assert depot.fleet.offer(device)["package"]["method"] == "full"
    (told,) = depot.told("assignment.offered", device)
    assert (told["way"], told["unknown_weights"]) == ("full", UNKNOWN)


def test_an_offer_stands_though_a_smaller_package_comes(depot: Any) -> None:
    depot.fleet.publish(1, 2, b"the first package")
    device = depot.enrol(1)
    depot.fleet.roll_out(2)
    offered = depot.fleet.offer(device)
    depot.fleet.publish(1, 2, b"smaller")
    assert depot.fleet.offer(device) == offered
    other = depot.enrol(1)
    assert depot.fleet.offer(other)["package"]["size"] == 7


def test_what_retention_removed_is_not_offered(three: Any) -> None:
    device, late = three.enrol(1), three.enrol(2)
    three.fleet.roll_out(3)
    assert len(three.fleet.offer(device)["chain"]) == 2
    three.remove_package(three.steps[0])
    assert three.settled_offer(device)["package"]["method"] == "xor"
    assert three.fleet.offer(late)["package"]["sha256"] == three.steps[1]
    three.remove_weights(2)
    assert three.settled_offer(late)["package"]["method"] == "full"


def test_weights_that_are_gone_hold_a_device_that_has_them_in_no_slot(three: Any) -> None:
    device, there = (
        three.enrol(1),
        three.fleet.enrol(models={"m": {"slots": three.digests, "current": three.digests[0]}}),
    )
    three.fleet.roll_out(3)
    three.remove_weights(3)
    assert three.fleet.offer(device)["held"] == "weights_removed"
    assert (three.fleet.offer(there)["held"], three.fleet.offer(there)["package"]) == (None, None)


def test_packages_of_a_newer_format_go_to_devices_that_know_it(three: Any) -> None:
    needs = {"version": 2, "format": 1, "coder": "zstd/1", "dtypes": ["F32"]}
    three.set(Package, Package.sha256 == three.steps[1], needs=needs)
    device, newer = three.enrol(2), three.enrol(2, methods={"ka": 2, "xor": 1, "full": 1})
    three.fleet.roll_out(3)
    assert three.fleet.offer(device)["held"] == "package_being_built"
    assert three.fleet.offer(newer)["package"]["sha256"] == three.steps[1]


def test_a_plan_takes_as_many_queries_whatever_is_published(
    three: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = three.enrol(1)
    three.fleet.roll_out(3)
    monkeypatch.setattr(offers, "REMEMBERED_SECONDS", 0.0)
    state = three.fleet.server.app.state
    asked: list[str] = []
    mine = threading.get_ident()  # what the server does by itself meanwhile is not counted

    def count(*call: Any) -> None:
        if threading.get_ident() == mine:
            asked.append(call[2])

    event.listen(state.engine, "before_cursor_execute", count)

    def queries() -> int:
        with reading(state.engine) as session:
            here = session.get_one(Device, device["device_id"])
            held = session.get_one(DeviceModel, (here.id, "m"))
            target = session.scalars(select(Version).where(Version.number == 3)).one()
            wanted = session.scalars(select(Assignment)).one()
            asked.clear()
            planned = state.planning.plan_for(session, here, held, target, wanted)
        assert len(planned.plan.packages) == 2
        return len(asked)

    few = queries()
    for number in range(40):
        three.fleet.publish(1, 2, f"a larger package {number}".encode())
    assert queries() == few == 4


def test_a_device_that_changes_weights_in_place_is_not_offered_other_tensors(
    depot: Any, weights_file: Any
) -> None:
    other = depot.upload(weights_file(3, head__weight=np.ones((2, 2), np.float32)), new_schema=True)
    devices = {said: depot.enrol(1, in_place=[said]) for said in ("m", "another")}
    rollout = depot.fleet.roll_out(other)
    assert depot.fleet.offer(devices["m"])["held"] == "needs_ab"
    assert depot.assignment(devices["m"], rollout)["held"] == "needs_ab"
    assert depot.settled_offer(devices["another"])["package"]["method"] == "full"


def test_a_device_that_changes_weights_in_place_is_offered_the_same_tensors(depot: Any) -> None:
    device = depot.enrol(1, in_place=["m"])
    depot.fleet.roll_out(2)
    assert depot.settled_offer(device)["package"]["method"] == "xor"


@pytest.mark.parametrize("held", [None, UNKNOWN])
def test_nobody_knows_that_first_or_unknown_weights_do_not_fit(
    depot: Any, weights_file: Any, held: str | None
) -> None:
    other = depot.upload(weights_file(3, head__weight=np.ones((2, 2), np.float32)), new_schema=True)
    device = depot.enrol(held, in_place=["m"])
    depot.fleet.roll_out(other)
    assert depot.settled_offer(device)["package"]["method"] == "full"
