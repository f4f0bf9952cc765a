"""A backup from before the last publications: devices accept what the restored server signs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from tuf.api.exceptions import BadVersionNumberError
from tuf.api.metadata import Targets

from server.backup.folder import BackupFolder
from server.backup.restore import restore
from server.backup.take import take
from server.db import open_engine, reading
from server.storage.base import BlobStore
from server.storage.local import LocalStore
from server.tables import now
from server.trust import repository
from server.trust.documents import read, sign
from shared.metadata import ROOT, TARGETS
from tests.trust.shop import Shop, TufDevice, find_model, find_version, rows_of

Make = Callable[..., TufDevice]


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return LocalStore(tmp_path / "blobs")


@pytest.fixture
def empty(databases: Any, tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(databases.url(tmp_path / "empty"))
    yield engine
    engine.dispose()


@pytest.fixture
def listed(shop: Shop, blobs: BlobStore) -> Shop:
    """Two released versions, whose weights no test needs: they count as removed."""
    with shop.writing() as session:
        for number in (1, 2, 3):
            find_version(session, number).removed_at = now()
    shop.release(1, 2)
    return shop


def quiet(_: int) -> None:
    pass


@pytest.fixture
def an_hour_later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Sets the repository's clock: versions follow it."""

    def set_clock() -> None:
        monkeypatch.setattr(repository, "now", lambda: now() + timedelta(hours=1))

    return set_clock


def test_a_restored_server_signs_beyond_all_that_was_published(
    listed: Shop,
    blobs: BlobStore,
    empty: Engine,
    tmp_path: Path,
    device: Make,
    an_hour_later: Callable[[], None],
) -> None:
    folder = BackupFolder(tmp_path / "backup")
    take(listed.engine, blobs, folder, quiet)
    listed.release(3)
    camera = device()
    assert camera.lists(1, 2, 3) == [1, 2, 3]
    restore(folder, empty, blobs, quiet)
    an_hour_later()
    restored = camera.shop = Shop(empty, listed.settings)
    before = rows_of(restored)
    assert restored.trust.renew() == 0
    assert rows_of(restored) == before, "it was renewed at the start"
    held = camera.versions
    assert camera.lists(1, 2, 3) == [1, 2]
    assert all(camera.versions[role] > held[role] for role in held if role != ROOT)
    restored.release(3)
    assert camera.lists(1, 2, 3) == [1, 2, 3]


def test_roots_published_after_the_backup_lie_beside_the_keys(
    listed: Shop,
    blobs: BlobStore,
    empty: Engine,
    tmp_path: Path,
    device: Make,
    an_hour_later: Callable[[], None],
) -> None:
    folder = BackupFolder(tmp_path / "backup")
    take(listed.engine, blobs, folder, quiet)
    listed.prepare_root()
    with listed.writing() as session:
        listed.trust.accept_root(session, listed.next_root.read_bytes())
    listed.trust.renew()
    camera = device()
    camera.refresh()
    assert camera.versions[ROOT] == 2
    restore(folder, empty, blobs, quiet)
    an_hour_later()
    camera.shop = Shop(empty, listed.settings)
    camera.shop.trust.renew(now() + timedelta(days=20))
    assert camera.lists(1, 2) == [1, 2]
    assert len(rows_of(camera.shop)["roots"]) == 2


def test_where_the_release_key_is_elsewhere_somebody_is_told_to_sign(
    listed: Shop,
    blobs: BlobStore,
    empty: Engine,
    tmp_path: Path,
    device: Make,
    caplog: pytest.LogCaptureFixture,
    an_hour_later: Callable[[], None],
) -> None:
    folder = BackupFolder(tmp_path / "backup")
    take(listed.engine, blobs, folder, quiet)
    listed.release(3)
    camera = device()
    camera.refresh()
    key = listed.take_offline(TARGETS)[TARGETS]
    restore(folder, empty, blobs, quiet)
    caplog.set_level(logging.WARNING)
    an_hour_later()
    restored = camera.shop = Shop(empty, listed.settings)
    [told] = [r.getMessage() for r in caplog.records if r.getMessage().startswith("release of m")]
    assert "is from a backup" in told
    assert "`weft keys renew release`" in told
    with pytest.raises(BadVersionNumberError):
        camera.refresh()
    with reading(empty) as session:
        [concern] = restored.trust.concerns(session)
    assert concern.about == "release of m"

    with restored.writing() as session:
        draft = restored.trust.draft_targets(session, find_model(session))
        content = sign(read(draft, Targets).signed, [key])
        restored.trust.accept_targets(session, find_model(session), content)
    assert camera.lists(1, 2, 3) == [1, 2]
    with reading(empty) as session:
        assert restored.trust.concerns(session) == []
