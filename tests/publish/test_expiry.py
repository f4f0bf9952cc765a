"""Old packages and weights go, never what a device still needs, whoever asks at the same time."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select, update

from server.db import reading, writing
from server.publish import expiry
from server.publish.expiry import expire_packages
from server.publish.orphans import remove_orphans
from server.tables import Dataset, Package, Refinement, Rollout, Version, now
from tests.conftest import Fleet

LATER = timedelta(days=40)


@pytest.fixture
def fleet(server: Any, weights_file: Callable[..., Path]) -> Fleet:
    """Versions 1 to 5, and packages 1 -> 2 -> 3 -> 4 -> 5 with the ids 1 to 4."""
    fleet = Fleet(server, [weights_file(seed) for seed in range(5)])
    for number in range(1, 5):
        fleet.publish(number, number + 1, f"package {number}".encode())
    return fleet


def expire(fleet: Fleet, keep_versions: int = 1, days: int = 30) -> int:
    state = fleet.server.app.state
    return expire_packages(state.engine, state.blobs, days, keep_versions, now() + LATER)


def kept(fleet: Fleet) -> tuple[list[int], list[int]]:
    """Ids of the packages, and numbers of the versions, that are there in row and store."""
    state = fleet.server.app.state
    with reading(state.engine) as session:
        packages = session.scalars(select(Package).order_by(Package.id)).all()
        versions = session.scalars(select(Version).order_by(Version.number)).all()
    there = set(state.blobs.kept_before(now() + LATER))
    for row in packages:
        assert (row.state == "published") == (row.removed_at is None) == (row.sha256 in there)
    for version in versions:
        assert (version.removed_at is None) == (version.blob in there)
    return (
        [row.id for row in packages if row.removed_at is None],
        [version.number for version in versions if version.removed_at is None],
    )


ALL = ([1, 2, 3, 4], [1, 2, 3, 4, 5])


def test_young_things_and_the_newest_versions_stay(fleet: Fleet) -> None:
    assert expire(fleet, days=0) == expire(fleet, days=41) == expire(fleet, keep_versions=5) == 0
    assert kept(fleet) == ALL
    expire(fleet, keep_versions=2)
    assert kept(fleet) == ([3, 4], [3, 4, 5])


def test_what_is_removed_is_in_the_history_and_told_to_who_asks_for_it(fleet: Fleet) -> None:
    sha256 = fleet.call("GET", "/api/v1/packages/1")["sha256"]
    assert expire(fleet) == 6
    assert kept(fleet) == ([4], [4, 5])
    events = fleet.call("GET", "/api/v1/events?filter=kind==*.removed&order=oldest")["items"]
    assert [(e["kind"], e["package_id"]) for e in events[:3]] == [
        ("package.removed", 1),
        ("package.removed", 2),
        ("package.removed", 3),
    ]
    assert [e["data"]["number"] for e in events[3:]] == [1, 2, 3]
    gone = fleet.call("GET", "/api/v1/packages/1/content", status=410)
    assert gone["code"] == "update.removed"
    gone = fleet.call("GET", "/api/v1/models/m/versions/1/weights", status=410)
    assert gone["code"] == "version.removed"
    assert fleet.call("GET", "/api/v1/packages/1")["state"] == "removed"
    device = fleet.enrol(fleet.digests[4])
    url = f"/device/v1/packages/{sha256}"
    assert fleet.server.client.get(url, headers=device["headers"]).status_code == 404


def test_what_a_device_holds_and_its_way_to_the_newest_rollout_stay(fleet: Fleet) -> None:
    device = fleet.enrol(fleet.digests[1])
    fleet.roll_out(4)
    expire(fleet)
    assert kept(fleet) == ([2, 3, 4], [2, 3, 4, 5])
    assignment = fleet.offer(device)["assignment"]
    fleet.server.app.state.building.close()  # else the package 2 -> 4 is there at any time
    fleet.report(device, assignment, fleet.digests[3])
    expire(fleet)
    # Its slot holds version 4; version 2 is where a rollback of the rollout would lead.
    assert kept(fleet) == ([4], [2, 4, 5])


def roll_out(fleet: Fleet, version: int, **body: Any) -> int:
    body |= {"model": "m", "version": version}
    return int(fleet.call("POST", "/api/v1/rollouts", json=body)["id"])


def test_a_late_device_finds_what_its_finished_rollout_leads_to(fleet: Fleet) -> None:
    """Though a newer rollout, for other devices, has finished too."""
    for name, base, target in [("line3", 3, 4), ("line4", 1, 2)]:
        device = fleet.enrol(fleet.digests[base - 1], name=f"{name}-a")
        roll_out(fleet, target, filter=f"name=={name}*")
        fleet.report(device, fleet.offer(device)["assignment"], fleet.digests[target - 1])
    states = fleet.call("GET", "/api/v1/rollouts")["items"]
    assert [row["state"] for row in states] == ["finished", "finished"]
    fleet.enrol(fleet.digests[2], name="shelf")
    expire(fleet)
    late = fleet.enrol(fleet.digests[2], name="line3-b")
    assert fleet.offer(late)["package"]["sha256"] == hashlib.sha256(b"package 3").hexdigest()


@pytest.mark.parametrize(
    ("rollouts", "versions"),
    [
        ([(2, "name==a*"), (3, "name==b*")], [2, 3, 5]),
        ([(2, "name==a*"), (3, "name==a*")], [3, 5]),
        ([(2, "name==a*"), (3, None), (4, "name==b*")], [3, 4, 5]),
    ],
)
def test_finished_rollouts_count_as_far_as_devices_may_join_them(
    fleet: Fleet, rollouts: list[tuple[int, str | None]], versions: list[int]
) -> None:
    ids = [roll_out(fleet, version, filter=text) for version, text in rollouts]
    with writing(fleet.server.app.state.engine) as session:
        done = {"state": "finished", "finished_at": now()}
        session.execute(update(Rollout).where(Rollout.id.in_(ids)).values(**done))
    expire(fleet)
    assert [n for n in kept(fleet)[1] if n in (*versions, 2)] == versions


def test_weights_in_any_slot_stay_as_bases(fleet: Fleet) -> None:
    held = {"m": {"current": fleet.digests[2], "slots": [fleet.digests[0], fleet.digests[2]]}}
    fleet.enrol(models=held)
    expire(fleet)
    assert kept(fleet) == ([4], [1, 3, 4, 5])


def test_what_an_open_refinement_starts_from_stays(fleet: Fleet) -> None:
    with writing(fleet.server.app.state.engine) as session:
        session.get_one(Version, 3).parent_id = 2
        common = {"fingerprint": "f" * 64, "rows": 1, "classes": []}
        session.add(Dataset(name="d", uri="d", **common))
        session.flush()
        row = {"method": {"id": "ka", "options": {}}, "recipe": {}, "state": "running"}
        session.add(Refinement(model_id=1, base_version_id=3, dataset_id=1, **row))
    expire(fleet)
    assert kept(fleet) == ([4], [2, 3, 4, 5])


def test_an_open_assignment_keeps_its_package(fleet: Fleet) -> None:
    device = fleet.enrol(fleet.digests[0])
    fleet.roll_out(2)
    sha256 = fleet.offer(device)["package"]["sha256"]
    expire(fleet)
    url = f"/device/v1/packages/{sha256}"
    assert fleet.server.client.get(url, headers=device["headers"]).content == b"package 1"


@pytest.mark.parametrize("first", ["offer", "retention"])
def test_an_offer_at_the_same_time_never_loses_its_blob(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Whichever comes to its transaction first: what is offered afterwards can be downloaded."""
    device = fleet.enrol("9" * 64)  # weights that nobody knows: no package is on its way
    fleet.roll_out(5)
    before_rows = threading.Event()
    go_on = threading.Event()
    find = expiry._unneeded
    calls = []

    def wait(*args: Any) -> Any:
        calls.append(1)
        found = find(*args)
        if len(calls) == (1 if first == "offer" else 2):  # outside, or inside the transaction
            before_rows.set()
            assert go_on.wait(20)
        return found

    monkeypatch.setattr(expiry, "_unneeded", wait)
    retention = threading.Thread(target=expire, args=[fleet])
    retention.start()
    assert before_rows.wait(20)
    if first == "offer":
        body = {"models": {"m": {"current": fleet.digests[0], "slots": [fleet.digests[0]]}}}
        fleet.report(device, None, fleet.digests[0], state="idle", slots=list(body["models"]))
        assert fleet.poll(device).status_code == 200
        go_on.set()
    else:
        polls = threading.Thread(target=fleet.poll, args=[device])
        polls.start()
        go_on.set()
        polls.join()
    retention.join()
    kept(fleet)
    wanted = fleet.offer(device)
    for package in wanted.get("chain") or [wanted["package"]] if wanted["held"] is None else []:
        url = f"/device/v1/packages/{package['sha256']}"
        assert fleet.server.client.get(url, headers=device["headers"]).status_code == 200


def test_bytes_that_are_published_anew_meanwhile_stay(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Their blob comes into the store first, their row later: in between no row names them."""
    state = fleet.server.app.state
    again = tmp_path / "again"
    again.write_bytes(b"package 1")
    sha256 = hashlib.sha256(b"package 1").hexdigest()
    long_ago = (now() - LATER).timestamp()
    for name in list(state.blobs.kept_before(now() + LATER)):
        os.utime(state.blobs.place(name), (long_ago, long_ago))
    with writing(state.engine) as session:
        session.execute(update(Package).values(created_at=now() - LATER))
    remove = expiry.remove_unnamed

    def build_first(*args: Any) -> int:
        state.blobs.put(again)
        return remove(*args)

    monkeypatch.setattr(expiry, "remove_unnamed", build_first)
    assert expire_packages(state.engine, state.blobs, 30, 1) == 2
    assert state.blobs.size(sha256) == len(b"package 1")


def test_blobs_that_a_crash_left_are_found_by_the_sweep(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = fleet.server.app.state
    monkeypatch.setattr(expiry, "remove_unnamed", lambda *_: 0)  # killed right after the commit
    assert expire(fleet) == 0
    assert remove_orphans(state.engine, state.blobs, timedelta(seconds=-1)) == 6
    assert kept(fleet) == ([4], [4, 5])


def test_bytes_that_another_row_names_stay(fleet: Fleet) -> None:
    """The same weights as versions of two models are one blob."""
    fleet.call("POST", "/api/v1/models", json={"name": "other"})
    headers = {"Content-Type": "application/octet-stream"}
    body = fleet.files[0].read_bytes()
    fleet.call("POST", "/api/v1/models/other/versions", content=body, headers=headers)
    expire(fleet)
    path = "/api/v1/models/other/versions/1/weights"
    assert fleet.server.client.get(path).content == body
    fleet.call("GET", "/api/v1/models/m/versions/1/weights", status=410)


def test_weights_that_are_uploaded_again_are_the_same_version(fleet: Fleet) -> None:
    expire(fleet)
    headers = {"Content-Type": "application/octet-stream"}
    body = fleet.files[0].read_bytes()
    url = "/api/v1/models/m/versions"
    again = fleet.call("POST", url, content=body, headers=headers)
    assert (again["number"], again["removed_at"]) == (1, None)
    assert fleet.server.client.get(f"{url}/1/weights").content == body
    assert fleet.call("GET", "/api/v1/events?kind=version.brought_back")["items"]


def test_the_server_does_it_by_its_settings(fleet: Fleet, serve: Any) -> None:
    with writing(fleet.server.app.state.engine) as session:
        for table in (Package, Version):
            session.execute(update(table).values(created_at=now() - LATER))
    fleet.server.stop()
    fleet.server = serve(keep_packages_days=30, keep_versions=2)
    wanted = "limit=1&since=2026-01-01T00:00:00Z&kind=version.removed"
    with fleet.server.client.stream("GET", f"/api/v1/events/follow?{wanted}") as told:
        told.read()
    with reading(fleet.server.app.state.engine) as session:
        left = select(Package.id).where(Package.removed_at.is_(None)).order_by(Package.id)
        assert session.scalars(left).all() == [3, 4]


def test_nothing_is_written_where_nothing_is_due(fleet: Fleet) -> None:
    expire(fleet)
    begun: list[str] = []
    engine = fleet.server.app.state.engine
    event.listen(engine, "before_cursor_execute", lambda *args: begun.append(args[2]))
    assert expire(fleet) == 0
    assert not [statement for statement in begun if statement.startswith(("UPDATE", "DELETE"))]
