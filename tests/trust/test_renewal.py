"""Metadata are signed anew in good time, by whoever has the keys, once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from sqlalchemy import select
from tuf.api.exceptions import ExpiredMetadataError

from server.db import open_engine, reading
from server.errors import BadTrust
from server.tables import Event, now
from server.trust import edition
from server.trust.keys import keys_in
from server.trust.opening import open_trust
from shared.metadata import PACKAGES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from tests.trust.shop import Shop, TufDevice, rows_of

Make = Callable[..., TufDevice]
DAY = timedelta(days=1)


def versions(shop: Shop) -> dict[str, int]:
    """Those in use of `m`, and the root's."""
    found = {role: version for _, role, version, _ in rows_of(shop)["metadata"]}
    return found | {ROOT: rows_of(shop)["roots"][-1][0]}


def renewed(shop: Shop, days: int) -> set[str]:
    """The roles that are signed anew by a look after so many days."""
    before = versions(shop)
    shop.trust.renew(now() + days * DAY)
    return {role for role, version in versions(shop).items() if version != before[role]}


@pytest.fixture
def listed(shop: Shop) -> Shop:
    shop.release(1)
    return shop


@pytest.mark.parametrize(
    ("days", "roles"),
    [
        (6, set()),
        (8, {TIMESTAMP}),
        (16, {TIMESTAMP, SNAPSHOT, PACKAGES}),
        (184, {TIMESTAMP, SNAPSHOT, PACKAGES, TARGETS}),
        (366, {TIMESTAMP, SNAPSHOT, PACKAGES, TARGETS, ROOT}),
    ],
)
def test_what_is_past_half_its_life_is_signed_anew(
    listed: Shop, days: int, roles: set[str]
) -> None:
    assert renewed(listed, days) == roles
    assert renewed(listed, days) == set()


def test_devices_accept_what_was_renewed_and_refuse_what_was_not(
    listed: Shop, device: Make
) -> None:
    camera = device()
    camera.refresh()
    with pytest.raises(ExpiredMetadataError):
        camera.refresh(at=now() + 15 * DAY)
    for days in range(7, 420, 7):
        listed.trust.renew(now() + days * DAY)
    end = now() + 419 * DAY
    assert set(camera.refresh("v/1", at=end)) == set(device("new").refresh("v/1", at=end))
    assert camera.versions[ROOT] > 1


def test_without_the_offline_keys_only_the_online_roles_are_renewed(listed: Shop) -> None:
    listed.take_offline(ROOT, TARGETS)
    assert renewed(listed, 400) == {TIMESTAMP, SNAPSHOT, PACKAGES}


def test_one_model_that_cannot_be_renewed_does_not_keep_the_others(
    listed: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    listed.register("zebra", versions=1)
    listed.release(1, name="zebra")
    with listed.writing() as session:
        session.connection().exec_driver_sql(
            "UPDATE trust_metadata SET content = '{}' WHERE model_id = 1 AND role = 'targets'"
        )
    before = {row[:3] for row in rows_of(listed)["metadata"]}
    with pytest.raises(BadTrust, match="no metadata"), caplog.at_level(logging.ERROR):
        listed.trust.renew(now() + 20 * DAY)
    assert "metadata of model 1 are not renewed" in caplog.text
    assert {row[0] for row in rows_of(listed)["metadata"] if row[:3] not in before} == {2}


def test_of_two_processes_that_renew_at_once_one_signs(listed: Shop, device: Make) -> None:
    camera, moment, start = device(), now() + 400 * DAY, Barrier(2)
    camera.refresh()

    def renew(_: int) -> int:
        engine = open_engine(listed.engine.url.render_as_string(hide_password=False))
        try:
            trust = open_trust(listed.settings, engine)
            start.wait()
            return trust.renew(moment)
        finally:
            engine.dispose()

    with ThreadPoolExecutor(2) as both:
        assert sum(both.map(renew, range(2))) == 2  # root and model, each by one of them
    assert set(camera.refresh("v/1", at=moment)) == {"v/1"}


def test_a_root_that_was_written_and_not_published_is_taken(listed: Shop, device: Make) -> None:
    """As after a crash between the two, and where somebody laid it there."""
    folder, moment = listed.trust.keyring.folder, now() + 400 * DAY
    listed.trust.renew(moment)
    assert (folder / "2.root.json").read_text() == rows_of(listed)["roots"][1][1]
    with listed.writing() as session:
        session.connection().exec_driver_sql("DELETE FROM trust_roots WHERE version = 2")
    assert listed.trust.renew(moment) == 1
    assert (folder / "2.root.json").read_text() == rows_of(listed)["roots"][1][1]
    assert device().lists(1) == [1]


def test_old_versions_are_forgotten_in_the_end(
    listed: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edition, "KEPT", 5)
    for turn in range(8):
        listed.trust.renew(now() + turn * 20 * DAY)
        latest = versions(listed)
    found = [(role, version) for _, role, version, _ in rows_of(listed)["metadata"]]
    for role in (TIMESTAMP, SNAPSHOT, PACKAGES):
        kept = [version for name, version in found if name == role]
        assert (len(kept), kept[-1]) == (5, latest[role])


def test_history_tells_of_roots(listed: Shop) -> None:
    listed.trust.renew(now() + 400 * DAY)
    with reading(listed.engine) as session:
        query = select(Event.data).where(Event.kind == "root.published").order_by(Event.id)
        assert list(session.scalars(query)) == [{"version": 1}, {"version": 2}]


def test_what_is_withdrawn_by_half_is_not_signed_anew(listed: Shop, device: Make) -> None:
    """The release key was away when the version was withdrawn, and came back."""
    listed.release(2)
    folder = listed.trust.keyring.folder
    keys = {file.path: file.path.read_bytes() for file in keys_in(folder) if file.role == TARGETS}
    listed.take_offline(TARGETS)
    assert not listed.withdraw(2)
    for path, content in keys.items():
        path.write_bytes(content)
        path.chmod(0o600)
    listed.reopen()
    listed.trust.renew(now() + 200 * DAY)
    assert device().lists(1, 2) == [1]
    assert rows_of(listed)["versions"][1][1] is None, "the row must say so too"
