"""Ceremonies by their commands: what they leave is accepted by clients that had the state before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server.trust import sealed
from tests.cli.site import PASSPHRASE, Site


@pytest.fixture(autouse=True)
def _passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_KEYS_PASSPHRASE", PASSPHRASE)
    monkeypatch.setattr(sealed, "ROUNDS", 1000)


@pytest.fixture
def site(tmp_path: Path, serve: Any, weft: Any) -> Site:
    """A server whose keys were made in a ceremony: two of three root keys sign."""
    site = Site(tmp_path, serve, weft)
    done = weft("keys", "init", "--folder", site.offline, "--online", site.keys, "--yes")
    assert done.status == 0, done.err
    site.start(keys_dir=site.keys)
    site.add_model()
    return site


@pytest.fixture
def embedded(tmp_path: Path, serve: Any, weft: Any) -> Site:
    """A server that has made its keys itself."""
    site = Site(tmp_path, serve, weft)
    site.start()
    site.add_model()
    return site


def release(site: Site, number: int, *words: object, model: str = "digits") -> Any:
    return site.done("release", model, number, "--folder", site.offline, "--yes", *words)


def test_a_first_ceremony_keeps_root_and_release_off_the_server(site: Site) -> None:
    assert site.private(site.offline) == ["release", "root", "root", "root"]
    assert site.private(site.keys) == ["packages", "snapshot", "timestamp"]
    told = site.done("keys", "status", "--folder", site.offline)
    places = {key["role"]: key["private"] for key in told["keys"]}
    assert places["snapshot"] == "the server"
    assert places["root"].startswith(str(site.offline))
    assert [key["threshold"] for key in told["keys"] if key["role"] == "root"] == [2, 2, 2]


def test_a_version_is_released_by_the_offline_key(site: Site) -> None:
    refused = site.weft("release", "digits", 1)
    assert (refused.status, refused.code) == (1, "repository.release_key_offline")
    assert release(site, 1)["released_at"] is not None
    device = site.device()
    assert device.lists(1, 2) == [1]
    release(site, 2)
    assert device.lists(1, 2) == [1, 2]


def test_an_embedded_server_releases_in_one_call(embedded: Site) -> None:
    assert embedded.done("release", "digits", 1)["released_at"] is not None
    assert embedded.device().lists(1, 2) == [1]
    embedded.done("versions", "withdraw", "digits", 1)
    assert embedded.device("other").lists(1, 2) == []


def test_rotating_the_root(site: Site) -> None:
    release(site, 1)
    device, old = site.device(), site.keyids("root")
    assert device.lists(1) == [1]
    site.keys_do("rotate", "root", "--count", 2, "--threshold", 1)
    new = site.keyids("root")
    assert len(new) == 2
    assert not set(new) & set(old)
    assert device.lists(1) == [1]
    assert device.versions["root"] == 2


@pytest.mark.parametrize("role", ["release", "packages", "snapshot", "timestamp", "online"])
def test_rotating_a_role(site: Site, role: str) -> None:
    site.add_model("faces", versions=1)
    for model in ("digits", "faces"):
        release(site, 1, model=model)
    devices = [site.device("d"), site.device("f", "faces")]
    assert [device.lists(1) for device in devices] == [[1], [1]]
    words = ["packages", "snapshot", "timestamp"] if role == "online" else [role]
    before = {word: site.keyids(word) for word in words}
    site.keys_do("rotate", role)
    for word in words:
        after = site.keyids(word)
        assert len(after) == 1
        assert after != before[word]
    assert [device.lists(1) for device in devices] == [[1], [1]]
    assert site.private(site.keys) == ["packages", "snapshot", "timestamp"]
    release(site, 2)
    assert devices[0].lists(1, 2) == [1, 2]
    site.start(keys_dir=site.keys)
    assert site.device("new").lists(1, 2) == [1, 2]
