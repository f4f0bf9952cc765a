"""What a server does with keys and roots when it starts."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from server.db import open_engine, reading
from server.errors import BadKey, BadTrust
from server.settings import Settings, load_settings
from server.tables import now
from server.trust.embedded import make_keys
from server.trust.keys import keys_in, load_signer, write_private
from server.trust.opening import open_trust
from server.trust.passphrases import NOBODY
from shared.metadata import TARGETS, TIMESTAMP
from tests.trust.shop import Shop, rows_of


@pytest.fixture
def other(databases: Any, tmp_path: Path) -> Iterator[Engine]:
    """Another database."""
    engine = open_engine(databases.url(tmp_path / "other"))
    yield engine
    engine.dispose()


def refused(settings: Settings, engine: Engine, code: str) -> None:
    with pytest.raises((BadTrust, BadKey)) as caught:
        open_trust(settings, engine)
    assert caught.value.code == code


def test_the_first_start_makes_all_keys_for_this_user_alone(shop: Shop) -> None:
    folder = shop.settings.data_dir / "keys"
    assert sorted({file.role for file in keys_in(folder)}) == sorted(
        ("root", "targets", "packages", "snapshot", "timestamp")
    )
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.path.stat().st_mode) for file in keys_in(folder)} == {0o600}
    assert [path.name for path in shop.settings.data_dir.glob(".keys*")] == []
    with reading(shop.engine) as session:
        assert shop.trust.can_release(session)


def test_later_starts_change_nothing(shop: Shop) -> None:
    shop.release(1)
    before = rows_of(shop)
    shop.reopen()
    assert rows_of(shop) == before


def test_a_start_that_was_killed_between_keys_and_database_goes_on(
    engine: Engine, tmp_path: Path
) -> None:
    settings = load_settings(data_dir=tmp_path / "server")
    make_keys(settings.keys_folder, now())
    root = (settings.keys_folder / "1.root.json").read_text()
    shop = Shop(engine, settings)
    assert [content for _, content in rows_of(shop)["roots"]] == [root]


def test_a_start_that_was_killed_among_the_keys_begins_again(
    engine: Engine, tmp_path: Path
) -> None:
    settings = load_settings(data_dir=tmp_path / "server")
    half = settings.data_dir / ".keys-half"
    half.mkdir(parents=True)
    (half / "root-00000000.pem").write_text("half a key")
    open_trust(settings, engine)
    assert not half.exists()


def test_processes_that_start_at_once_have_the_same_keys(databases: Any, tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path / "server")
    url = databases.url(tmp_path / "shared")

    def start(_: int) -> str:
        engine = open_engine(url)
        try:
            trust = open_trust(settings, engine)
            with reading(engine) as session:
                return trust.root_sha256(session)
        finally:
            engine.dispose()

    with ThreadPoolExecutor(4) as several:
        assert len(set(several.map(start, range(4)))) == 1


def test_keys_that_are_lost_are_not_made_again(shop: Shop) -> None:
    shutil.rmtree(shop.settings.keys_folder)
    refused(shop.settings, shop.engine, "repository.keys_missing")
    assert not shop.settings.keys_folder.exists()


def test_a_folder_that_was_named_is_not_filled(engine: Engine, tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path / "server", keys_dir=tmp_path / "ceremony")
    refused(settings, engine, "repository.keys_missing")
    assert not settings.keys_folder.exists()


def test_the_keys_of_another_database_are_refused(
    shop: Shop, other: Engine, tmp_path: Path
) -> None:
    elsewhere = load_settings(data_dir=tmp_path / "elsewhere")
    open_trust(elsewhere, other)
    before = rows_of(shop)
    refused(elsewhere, shop.engine, "repository.other_root")
    assert rows_of(shop) == before


def test_keys_without_a_root_are_refused(shop: Shop, other: Engine) -> None:
    (shop.settings.keys_folder / "1.root.json").unlink()
    refused(shop.settings, other, "repository.no_root")


def test_an_online_key_that_is_lost_is_named(shop: Shop) -> None:
    [file] = [f for f in keys_in(shop.settings.keys_folder) if f.role == TIMESTAMP]
    file.path.unlink()
    refused(shop.settings, shop.engine, "repository.key_missing")


def test_a_key_that_others_may_read_is_refused(shop: Shop) -> None:
    for file in keys_in(shop.settings.keys_folder):
        file.path.chmod(0o644)
    refused(shop.settings, shop.engine, "key.open_to_others")


def test_an_offline_key_under_a_passphrase_is_as_good_as_none(shop: Shop) -> None:
    """It may lie in the folder of a machine that both serves and releases."""
    [file] = [f for f in keys_in(shop.settings.keys_folder) if f.role == TARGETS]
    signer: Any = load_signer(file.path, NOBODY)
    file.path.unlink()
    write_private(shop.settings.keys_folder, TARGETS, signer, b"correct horse battery")
    trust = shop.reopen()
    with reading(shop.engine) as session:
        assert not trust.can_release(session)


def test_roots_beside_the_keys_are_taken_in_a_row(shop: Shop, other: Engine) -> None:
    """As where the database is new, or restored from before they were published."""
    for days in (400, 800, 1200):
        shop.trust.renew(now() + timedelta(days=days))
    roots = rows_of(shop)["roots"]
    assert len(roots) == 4
    restored = Shop(other, shop.settings)
    assert rows_of(restored)["roots"] == roots


def test_a_row_of_roots_with_a_stranger_in_it_is_refused(shop: Shop, other: Engine) -> None:
    for days in (400, 800):
        shop.trust.renew(now() + timedelta(days=days))
    path = shop.settings.keys_folder / "2.root.json"
    path.write_bytes(path.read_bytes().replace(b'"version":2', b'"version": 2'))
    Shop(other, shop.settings)  # other bytes of the same document: the signature is over that
    changed = path.read_bytes().replace(b'"threshold":1', b'"threshold":2', 1)
    path.write_bytes(changed)
    (shop.settings.keys_folder / "3.root.json").unlink()
    with shop.writing() as session:
        session.connection().exec_driver_sql("DELETE FROM trust_roots WHERE version > 1")
    refused(shop.settings, shop.engine, "repository.bad_signature")
