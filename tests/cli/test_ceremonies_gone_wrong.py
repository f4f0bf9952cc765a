"""Ceremonies that are cut off, or fed with the wrong thing: nothing is lost, and they go on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.cli.client import Client
from server.trust import desk, keys
from tests.cli.conftest import save_weights
from tests.cli.site import Site, embedded, passphrases, release, site

__all__ = ["embedded", "passphrases", "site"]


class CutOffError(Exception):
    """As if the power went."""


class Power:
    """Goes at one of the steps of a ceremony: before or after a write, or a request."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.goes_after = -1, False
        for module in (desk, keys):
            monkeypatch.setattr(module, "write_new", self._failing(module.write_new))
        monkeypatch.setattr(desk, "replace", self._failing(desk.replace))
        monkeypatch.setattr(Client, "post", self._failing(Client.post))

    def _failing(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def acting(*words: Any, **more: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not self.goes_after:
                raise CutOffError
            done = act(*words, **more)
            if self.left == 0:
                raise CutOffError
            return done

        return acting


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> Power:
    return Power(monkeypatch)


def cut_off_everywhere(power: Power, command: Callable[[], Any]) -> Iterator[int]:
    """Run the command again and again, cut off one step later each time, until it ends."""
    for power.goes_after in (False, True):
        step, ended = 0, False
        while not ended:
            step += 1
            power.left = step
            done = command()
            power.left = -1
            ended = done.status == 0
            assert ended or "CutOffError" in done.err, done.err
            yield step


@pytest.mark.parametrize("words", [("rotate", "release"), ("rotate", "root"), ("offline",)])
def test_a_ceremony_that_is_cut_off_anywhere_goes_on(
    request: pytest.FixtureRequest, power: Power, words: tuple[str, ...]
) -> None:
    site: Site = request.getfixturevalue("embedded" if words == ("offline",) else "site")
    if words == ("offline",):
        site.done("release", "digits", 1)
    else:
        release(site, 1)
    device = site.device()
    assert device.lists(1) == [1]
    options = ("--folder", site.offline, "--online", site.keys, "--yes")
    steps = list(cut_off_everywhere(power, lambda: site.weft("keys", *words, *options)))
    assert max(steps) > 3
    assert device.lists(1) == [1]
    release(site, 2)
    assert device.lists(1, 2) == [1, 2]


def test_a_release_that_is_cut_off_anywhere_goes_on(site: Site, power: Power) -> None:
    release(site, 1)
    device = site.device()
    words = ("release", "digits", 2, "--folder", site.offline, "--yes")
    for _ in cut_off_everywhere(power, lambda: site.weft(*words)):
        assert 1 in device.lists(1, 2)
    assert device.lists(1, 2) == [1, 2]
    assert not list(site.offline.glob("*draft*"))


def test_a_first_ceremony_that_is_cut_off_makes_no_key_twice(
    tmp_path: Path, serve: Any, weft: Any, power: Power
) -> None:
    site = Site(tmp_path, serve, weft)
    words = ("keys", "init", "--folder", site.offline, "--online", site.keys, "--yes")
    power.goes_after = True
    for step in range(1, 14):
        power.left = step
        if weft(*words).status == 0:
            break
    else:
        pytest.fail("it was never at its end")
    assert step > 5
    assert site.private(site.offline) == ["release", "root", "root", "root"]
    assert site.private(site.keys) == ["packages", "snapshot", "timestamp"]
    site.start(keys_dir=site.keys)


def test_a_second_first_ceremony_is_refused(site: Site) -> None:
    words = ("keys", "init", "--folder", site.offline, "--online", site.keys, "--yes")
    assert site.refusal(*words)["code"] == "ceremony.exists"
    elsewhere = ("keys", "init", "--folder", site.folder / "other", "--online", site.keys)
    assert site.refusal(*elsewhere)["code"] == "ceremony.exists"
    assert not (site.folder / "other").exists()


def test_a_wrong_passphrase_signs_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_KEYS_PASSPHRASE", "another passphrase")
    words = ("release", "digits", 1, "--folder", site.offline, "--yes")
    assert site.refusal(*words)["code"] == "key.wrong_passphrase"
    monkeypatch.undo()
    release_words = ("release", "digits", 1, "--folder", site.offline, "--yes")
    monkeypatch.setenv("WEFT_KEYS_PASSPHRASE", "correct horse battery")
    site.done(*release_words)
    assert site.device().lists(1) == [1]


def test_nobody_signs_without_saying_yes(site: Site) -> None:
    refused = site.refusal("release", "digits", 1, "--folder", site.offline)
    assert refused["code"] == "ceremony.not_confirmed"
    done = site.weft("release", "digits", 1, "--folder", site.offline)
    version = site.done("versions", "show", "digits", 1)
    assert version["weights_digest"] in done.err
    assert version["released_at"] is None


def test_a_version_that_is_not_the_one_that_is_meant(site: Site) -> None:
    other = save_weights(site.folder / "other.safetensors", 0.9)
    words = ("release", "digits", 1, "--folder", site.offline, "--yes")
    assert site.refusal(*words, "--weights", other)["code"] == "ceremony.wrong_digest"
    assert site.refusal(*words, "--digest", "0" * 64)["code"] == "ceremony.wrong_digest"
    mine = site.folder / "digits-1.safetensors"
    release(site, 1, "--weights", mine)
    assert site.device().lists(1) == [1]


def test_weights_that_the_server_changed(site: Site) -> None:
    """The digest in the database is right, the file is another's."""
    for blob in (site.data / "blobs").glob("*/*"):
        if blob.is_file() and blob.parent.name != "tmp":
            save_weights(blob, 0.9)
    words = ("release", "digits", 1, "--folder", site.offline, "--yes")
    assert site.refusal(*words)["code"] == "ceremony.wrong_digest"


def test_a_server_that_shows_older_targets(site: Site, tmp_path: Path) -> None:
    release(site, 1)
    old = (site.offline / "digits.targets.json").read_bytes()
    release(site, 2)
    newer = (site.offline / "digits.targets.json").read_bytes()
    assert old != newer
    later = json.loads(newer)
    shutil.copytree(site.offline, tmp_path / "copy")
    # This folder has seen more than the server shows, as after a restore of an old backup.
    with_more = tmp_path / "copy"
    site.done("keys", "renew", "release", "--folder", with_more, "--yes")
    ahead = json.loads((with_more / "digits.targets.json").read_bytes())
    assert ahead["signed"]["version"] > later["signed"]["version"]
    site.running.stop()
    replayed(site, newer)
    site.start(keys_dir=site.keys)
    words = ("release", "digits", 2, "--folder", with_more, "--yes")
    assert site.refusal(*words)["code"] == "ceremony.older"


def replayed(site: Site, targets: bytes) -> None:
    """Have the server's database hold these targets as the newest."""
    import sqlite3

    version = json.loads(targets)["signed"]["version"]
    with sqlite3.connect(site.data / "weft.db") as database:
        gone = "DELETE FROM trust_metadata WHERE role = 'targets' AND version > ?"
        database.execute(gone, (version,))
        due = "UPDATE trust_metadata SET due_at = expires_at WHERE role = 'targets' AND version = ?"
        database.execute(due, (version,))
    database.close()


def test_targets_that_no_release_key_signed(site: Site, tmp_path: Path) -> None:
    release(site, 1)
    import sqlite3

    with sqlite3.connect(site.data / "weft.db") as database:
        query = "UPDATE trust_metadata SET content = replace(content, '\"v/1\"', '\"v/9\"')"
        database.execute(query)
    database.close()
    words = ("release", "digits", 2, "--folder", site.offline, "--yes")
    assert site.refusal(*words)["code"] == "ceremony.forged"


def test_another_draft_is_not_mistaken_for_this_one(site: Site) -> None:
    before = site.keyids("root")
    for keyid in before:
        (site.offline / f"root-{keyid}.pem").rename(site.folder / f"root-{keyid}.pem")
    options = ("--folder", site.offline, "--online", site.keys, "--yes")
    first = site.refusal("keys", "rotate", "root", *options)
    assert first["code"] == "ceremony.incomplete"
    assert all(keyid in first["message"] for keyid in before)
    other = site.refusal("keys", "rotate", "snapshot", *options)
    assert other["code"] == "ceremony.other_draft"
    assert "keys rotate root" in other["message"]
    assert site.keyids("root") == before


def test_a_draft_that_somebody_else_came_before_is_put_aside(site: Site, tmp_path: Path) -> None:
    release(site, 1)
    copy = tmp_path / "copy"
    shutil.copytree(site.offline, copy)
    for path in copy.glob("release-*.pem"):
        path.unlink()
    words = ("keys", "renew", "release", "--folder", copy, "--yes")
    assert site.refusal(*words)["code"] == "ceremony.incomplete"
    release(site, 2)
    [key] = site.offline.glob("release-*.pem")
    site.done(*words, "--sign-with", key)
    assert not list(copy.glob("*.draft.json"))
    assert list(copy.glob("*.overtaken"))
    assert site.device().lists(1, 2) == [1, 2]
