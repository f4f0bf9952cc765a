"""Releasing, listing and withdrawing, as a client of the specification sees it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select

from server.db import reading
from server.errors import BadTrust, BadVersion
from server.tables import Assignment, Device, Event, Package, Rollout, now
from server.trust import listing
from server.trust.listing import KEPT_PACKAGES, MOST_PACKAGES
from shared.errors import WeftError
from shared.metadata import MODEL_FIELD
from tests.trust.shop import (
    STREAM,
    Shop,
    TufDevice,
    find_model,
    find_package,
    find_version,
    rows_of,
    sha,
)

Make = Callable[..., TufDevice]


def test_a_released_version_and_its_package_are_accepted(shop: Shop, device: Make) -> None:
    shop.release(1, 2)
    package = shop.build(2, base=1)
    shop.offer(package)
    found = device().refresh("v/1", "v/2", "v/3", f"p/{package}")
    assert set(found) == {"v/1", "v/2", f"p/{package}"}
    version, listed = found["v/2"], found[f"p/{package}"]
    assert (version.length, version.hashes) == (STREAM, {"sha256": sha("m 2")})
    assert version.custom == {"schema": sha("schema")}
    assert (listed.length, listed.hashes) == (1002, {"sha256": package})
    assert listed.custom == {"base": sha("m 1"), "result": sha("m 2"), "method": "ka"}


def test_a_package_from_nothing_names_no_base(shop: Shop, device: Make) -> None:
    shop.release(1)
    package = shop.build(1)
    shop.offer(package)
    found = device().refresh(f"p/{package}")[f"p/{package}"]
    assert found.custom == {"base": None, "result": sha("m 1"), "method": "full"}


def test_nothing_is_sent_to_whoever_has_all(shop: Shop, device: Make) -> None:
    shop.release(1)
    camera = device()
    camera.refresh()
    with reading(shop.engine) as session:
        assert shop.trust.answer(session, find_model(session), camera.versions) is None


def test_what_is_listed_already_changes_nothing(shop: Shop) -> None:
    shop.release(1)
    package = shop.build(1)
    shop.offer(package)
    before = rows_of(shop)
    shop.release(1)
    shop.offer(package)
    assert rows_of(shop) == before


def test_models_do_not_see_each_other(shop: Shop, device: Make) -> None:
    shop.register("other", versions=1)
    shop.release(1)
    shop.release(1, name="other")
    assert device("a").refresh("v/1")["v/1"].hashes == {"sha256": sha("m 1")}
    other = device("b", model="other")
    assert other.refresh("v/1")["v/1"].hashes == {"sha256": sha("other 1")}
    named = {r: f'"{MODEL_FIELD}":"other"'.encode() in c for r, c in other.held.items()}
    assert named.pop("root") is False
    assert all(named.values())
    assert len(named) == 4


def test_a_withdrawn_version_is_gone_from_all_that_lists_it(shop: Shop, device: Make) -> None:
    shop.release(1, 2)
    packages = shop.build(2, base=1), shop.build(1)
    shop.offer(*packages)
    camera = device()
    assert camera.lists(1, 2, *packages) == [1, 2, *packages]
    assert shop.withdraw(2) is True
    assert camera.lists(1, 2, *packages) == [1, packages[1]]
    with shop.writing() as session:
        version = find_version(session, 2)
        assert not version.is_released
        with pytest.raises(BadVersion, match="withdrawn") as caught:
            shop.trust.release(session, version)
        assert caught.value.code == "version.withdrawn"
        with pytest.raises(BadVersion, match="withdrawn"):
            shop.trust.ensure_listed(session, [find_package(session, packages[0])])


def test_withdrawing_again_changes_nothing_more(shop: Shop) -> None:
    shop.release(1, 2)
    shop.withdraw(2)
    with reading(shop.engine) as session:
        first = find_version(session, 2).withdrawn_at
    assert shop.withdraw(2) is True
    with reading(shop.engine) as session:
        assert find_version(session, 2).withdrawn_at == first
        kinds = list(session.scalars(select(Event.kind).where(Event.kind == "version.withdrawn")))
    assert len(kinds) == 1


def test_a_version_that_was_never_released_is_withdrawn(shop: Shop) -> None:
    assert shop.withdraw(3) is True
    with pytest.raises(BadVersion):
        shop.release(3)


def test_packages_of_versions_that_are_not_released_are_not_listed(shop: Shop) -> None:
    shop.release(1)
    package = shop.build(2, base=1)
    before = rows_of(shop)
    with pytest.raises(BadVersion) as caught:
        shop.offer(package)
    assert caught.value.code == "version.not_released"
    assert rows_of(shop) == before


def test_old_versions_fall_off_the_list_and_come_back_when_asked_for(
    shop: Shop, device: Make
) -> None:
    numbers = [1, 2, 3, *(shop.upload() for _ in range(7))]
    shop.release(*numbers)
    camera = device()
    assert camera.lists(*numbers) == numbers[-8:]
    with reading(shop.engine) as session:
        assert not find_version(session, 1).is_released
    shop.release(1)
    assert camera.lists(*numbers) == [1, *numbers[-8:]]


def test_versions_that_rollouts_lead_to_stay_listed(shop: Shop, device: Make) -> None:
    shop.release(1, keep=2)
    with shop.writing() as session:
        session.add(Rollout(model_id=1, version_id=find_version(session, 1).id))
    shop.release(2, 3, keep=1)
    assert device().lists(1, 2, 3) == [1, 3]
    finish_rollouts(shop)
    shop.upload()
    shop.release(4, keep=1)
    assert device("late").lists(1, 2, 3, 4) == [1, 4], "devices may still join it"
    with shop.writing() as session:
        session.add(Rollout(model_id=1, version_id=find_version(session, 4).id))
    finish_rollouts(shop)
    shop.upload()
    shop.release(5, keep=1)
    assert device("later").lists(1, 2, 3, 4, 5) == [4, 5]


def finish_rollouts(shop: Shop) -> None:
    with shop.writing() as session:
        for rollout in session.scalars(select(Rollout)):
            rollout.state, rollout.finished_at = "finished", now()


def test_rollouts_that_are_done_keep_no_more_versions_than_metadata_can_bear(
    shop: Shop, device: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MOST_VERSIONS", 3)
    numbers = [1, 2, 3, *(shop.upload() for _ in range(3))]
    for number in numbers[:-1]:
        shop.release(number, keep=1)
        with shop.writing() as session:
            version = find_version(session, number)
            rollout = Rollout(model_id=1, version_id=version.id, filter=f"name==d{number}")
            session.add(rollout)
    assert device("all").lists(*numbers[:-1]) == numbers[:-1], "all are under way"
    finish_rollouts(shop)
    shop.release(6, keep=1)
    assert device().lists(*numbers) == [4, 5, 6]


def test_few_packages_stay_listed_beside_those_that_are_in_hand(shop: Shop, device: Make) -> None:
    shop.release(1, 2)
    packages = [shop.build(2, base=1, note=str(n)) for n in range(KEPT_PACKAGES + 4)]
    with shop.writing() as session:
        session.add(Rollout(model_id=1, version_id=find_version(session, 2).id))
        for number, chain in ((1, None), (3, [2, 3])):
            session.add(Device(id=f"d{number}", name="d", token_hash=f"{number}"))
            session.flush()
            session.add(
                Assignment(
                    rollout_id=1,
                    device_id=f"d{number}",
                    model_id=1,
                    package_id=number,
                    chain=chain,
                )
            )
    for package in packages:
        shop.offer(package)
    in_hand, newest = packages[:3], packages[-1]
    assert device().lists(*packages) == [*in_hand, newest]


def test_no_more_packages_are_listed_than_metadata_can_bear(shop: Shop, device: Make) -> None:
    shop.release(1, 2)
    with shop.writing() as session:
        session.add(Rollout(model_id=1, version_id=find_version(session, 2).id))
    packages = [shop.build(2, base=1, note=str(n)) for n in range(MOST_PACKAGES + 3)]
    with shop.writing() as session:
        for number, package in enumerate(session.scalars(select(Package).order_by(Package.id))):
            session.add(Device(id=f"d{number}", name="d", token_hash=f"{number}"))
            session.flush()
            session.add(
                Assignment(rollout_id=1, device_id=f"d{number}", model_id=1, package_id=package.id)
            )
    for few in (packages[:2], packages[2:20], packages[20:-1], packages[-1:]):
        shop.offer(*few)
    assert device().lists(*packages) == packages[-MOST_PACKAGES:]
    shop.offer(packages[0])  # asked for once more: it is listed whatever its age
    assert device("again").lists(packages[0]) == [packages[0]]


def test_packages_that_retention_has_removed_are_unlisted(shop: Shop, device: Make) -> None:
    shop.release(1)
    gone, there = shop.build(1, note="gone"), shop.build(1)
    shop.offer(gone)
    with shop.writing() as session:
        find_package(session, gone).state = "removed"
    shop.offer(there)
    assert device().lists(gone, there) == [there]


def test_without_the_release_key_nothing_is_released_but_packages_are_listed(
    shop: Shop, device: Make
) -> None:
    shop.release(1, 2)
    shop.take_offline("root", "targets")
    before = rows_of(shop)
    with pytest.raises(BadTrust) as caught:
        shop.release(3)
    assert caught.value.code == "repository.release_key_offline"
    assert rows_of(shop) == before
    package = shop.build(2, base=1)
    shop.offer(package)
    assert device().lists(1, 2, 3, package) == [1, 2, package]


def test_without_the_release_key_a_withdrawn_versions_packages_go_at_once(
    shop: Shop, device: Make
) -> None:
    shop.release(1, 2)
    package = shop.build(2, base=1)
    shop.offer(package)
    shop.take_offline("targets")
    assert shop.withdraw(2) is False
    assert device().lists(1, 2, package) == [1, 2]
    with reading(shop.engine) as session:
        assert not find_version(session, 2).is_released
        [concern] = shop.trust.concerns(session)
    assert concern.about == "version 2 of m"
    assert "weft versions withdraw m 2" in concern.todo


def test_history_says_what_was_released_and_taken_back(shop: Shop) -> None:
    shop.release(1, 2, keep=1)
    shop.withdraw(2)
    with reading(shop.engine) as session:
        query = select(Event.kind, Event.version_id).order_by(Event.id)
        found = [tuple(row) for row in session.execute(query)]
    assert found == [
        ("root.published", None),
        ("version.released", 1),
        ("version.unlisted", 1),
        ("version.released", 2),
        ("version.withdrawn", 2),
    ]


def test_a_key_that_does_not_sign_changes_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object, __: bytes) -> None:
        raise OSError("the service does not answer")

    shop.release(1)
    before = rows_of(shop)
    monkeypatch.setattr("securesystemslib.signer.CryptoSigner.sign", fails)
    with pytest.raises(WeftError, match="the service does not answer") as caught:
        shop.release(2)
    assert caught.value.code == "repository.signing_failed"
    assert rows_of(shop) == before
