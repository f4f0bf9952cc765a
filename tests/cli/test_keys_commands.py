"""Ceremonies by their commands: clients that had the state before accept what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.site import Site, embedded, passphrases, release, site

__all__ = ["embedded", "passphrases", "site"]


def test_a_first_ceremony_keeps_root_and_release_off_the_server(site: Site) -> None:
    assert site.private(site.offline) == ["release", "root", "root", "root"]
    assert site.private(site.keys) == ["packages", "snapshot", "timestamp"]
    told = site.done("keys", "status", "--folder", site.offline)
    places = {key["role"]: key["private"] for key in told["keys"]}
    assert places["snapshot"] == "the server"
    assert places["root"].startswith(str(site.offline))
    assert [key["threshold"] for key in told["keys"] if key["role"] == "root"] == [2, 2, 2]


def test_a_version_is_released_by_the_offline_key(site: Site) -> None:
    refused = site.refusal("release", "digits", 1)
    assert refused["code"] == "repository.release_key_offline"
    assert release(site, 1)["released_at"] is not None
    device = site.device()
    assert device.lists(1, 2) == [1]
    release(site, 2)
    assert device.lists(1, 2) == [1, 2]


def test_an_embedded_server_releases_in_one_call(embedded: Site) -> None:
    assert embedded.done("release", "digits", 1)["released_at"] is not None
    assert embedded.device().lists(1, 2) == [1]
    embedded.done("version", "withdraw", "digits", 1)
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


def test_revoking_one_of_many_root_keys_makes_none(site: Site) -> None:
    release(site, 1)
    device, before = site.device(), site.keyids("root")
    device.refresh()
    site.keys_do("revoke", before[0])
    assert site.keyids("root") == before[1:]
    assert device.lists(1) == [1]


def test_a_lost_root_key_is_replaced_by_the_others(site: Site) -> None:
    release(site, 1)
    device, before = site.device(), site.keyids("root")
    (site.offline / f"root-{before[2]}.pem").unlink()
    site.keys_do("rotate", "root", "--replace", before[2])
    assert set(site.keyids("root")) > set(before[:2])
    assert before[2] not in site.keyids("root")
    assert device.lists(1) == [1]


@pytest.mark.parametrize("word", ["release", "packages", "snapshot", "timestamp"])
def test_revoking_the_only_key_of_a_role_puts_another_in_its_place(site: Site, word: str) -> None:
    release(site, 1)
    device, [stolen] = site.device(), site.keyids(word)
    device.refresh()
    site.keys_do("revoke", stolen)
    [new] = site.keyids(word)
    assert new != stolen
    assert device.lists(1) == [1]


def test_a_revoked_key_signs_nothing_any_more(site: Site) -> None:
    release(site, 1)
    [stolen] = site.keyids("release")
    site.keys_do("revoke", stolen)
    [new] = site.keyids("release")
    (site.offline / f"release-{new}.pem").unlink()
    refused = site.refusal("release", "digits", 2, "--folder", site.offline, "--yes")
    assert refused["code"] == "ceremony.incomplete"
    assert new in refused["message"]
    draft = site.offline / "digits.targets.draft.json"
    stolen_key = site.offline / f"release-{stolen}.pem"
    refused = site.refusal("keys", "sign", draft, "--sign-with", stolen_key, "--yes")
    assert refused["code"] == "ceremony.wrong_key"
    assert site.device().lists(1, 2) == [1]


def test_a_key_that_signs_nothing_cannot_be_revoked(site: Site) -> None:
    refused = site.refusal("keys", "revoke", "00000000", "--folder", site.offline, "--yes")
    assert refused["code"] == "ceremony.unknown_key"


@pytest.mark.parametrize("word", ["root", "release"])
def test_renewal_by_hand(site: Site, word: str) -> None:
    release(site, 1)
    device, keys = site.device(), site.keyids(word)
    device.refresh()
    role = {"root": "root", "release": "targets"}[word]
    before = device.versions[role]
    site.done("keys", "renew", word, "--folder", site.offline, "--yes")
    assert device.lists(1) == [1]
    assert device.versions[role] > before
    assert site.keyids(word) == keys


def test_what_the_server_renews_itself_is_not_renewed_by_hand(site: Site) -> None:
    assert site.refusal("keys", "renew", "snapshot")["code"] == "command.invalid"


def test_an_embedded_server_moves_to_offline_keys(embedded: Site) -> None:
    site = embedded
    site.done("release", "digits", 1)
    device = site.device()
    assert device.lists(1) == [1]
    assert site.private(site.keys) == ["packages", "release", "root", "snapshot", "timestamp"]
    site.keys_do("offline")
    assert site.private(site.keys) == ["packages", "snapshot", "timestamp"]
    assert site.private(site.offline) == ["release", "root", "root", "root"]
    assert device.lists(1) == [1]
    assert site.refusal("release", "digits", 2)["code"] == "repository.release_key_offline"
    release(site, 2)
    assert device.lists(1, 2) == [1, 2]
    site.keys_do("offline")
    assert device.lists(1, 2) == [1, 2]
    site.start()
    site.keys_do("rotate", "root")
    assert device.lists(1, 2) == [1, 2]


def test_a_move_before_anything_was_released(embedded: Site) -> None:
    embedded.keys_do("offline")
    release(embedded, 1)
    assert embedded.device().lists(1) == [1]


def test_an_embedded_server_rotates_its_own_keys(embedded: Site) -> None:
    embedded.done("release", "digits", 1)
    device = embedded.device()
    device.refresh()
    for word in ("root", "release", "online"):
        before = embedded.keyids("root" if word == "online" else word)
        embedded.done("keys", "rotate", word, "--online", embedded.keys, "--yes")
        assert word == "online" or embedded.keyids(word) != before
        assert device.lists(1) == [1]
    embedded.done("release", "digits", 2)
    embedded.start()
    assert device.lists(1, 2) == [1, 2]


def test_a_withdrawn_version_is_off_the_list(site: Site) -> None:
    release(site, 1)
    release(site, 2)
    device = site.device()
    assert device.lists(1, 2) == [1, 2]
    halfway = site.refusal("versions", "withdraw", "digits", 1)
    assert halfway["code"] == "repository.release_key_offline"
    left = site.done("versions", "withdraw", "digits", 1, "--folder", site.offline, "--yes")
    assert left["withdrawn_at"] is not None
    assert device.lists(1, 2) == [2]
    again = site.refusal("release", "digits", 1, "--folder", site.offline, "--yes")
    assert again["code"] == "version.withdrawn"
    site.done("versions", "withdraw", "digits", 1, "--folder", site.offline, "--yes")
    assert device.lists(1, 2) == [2]


def test_a_real_server_moves_to_offline_keys_and_starts_again(
    tmp_path: Path, weft: Any, start_server: Any, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As processes of their own, with keys asked of operators."""
    data, stick = tmp_path / "data", tmp_path / "stick"
    monkeypatch.setenv("WEFT_KEY", "an-admin-key-of-the-test")
    asked = {"WEFT_REQUIRE_KEYS": "true", "WEFT_ADMIN_KEY": "an-admin-key-of-the-test"}

    def do(*words: object) -> Any:
        done = weft(*words, "--json", "--server", url)
        assert done.status == 0, done.err
        return done.json

    process = start_server(data, **asked)
    url = process.url
    do("models", "create", "m")
    do("versions", "upload", "m", base)
    do("release", "m", 1)
    reader = do("access", "create", "reader", "--role", "operator")["key"]
    place = ("--folder", stick, "--online", data / "keys", "--yes")
    for refused in (("release", "m", 1), ("versions", "withdraw", "m", 1)):
        done = weft(*refused, "--json", "--server", url, "--key", reader)
        assert done.code == "request.forbidden"
    do("keys", "offline", *place)
    assert process.stop() == (0, "")
    process = start_server(data, **asked)
    url = process.url
    status = do("keys", "status", "--folder", stick)
    lying = {key["role"]: key["private"] for key in status["keys"]}
    assert lying["snapshot"] == "the server"
    assert str(stick) in lying["root"]
    assert {document["state"] for document in status["documents"]} != {"EXPIRED"}
    do("versions", "withdraw", "m", 1, "--folder", stick, "--yes")
    assert do("versions", "show", "m", 1)["released_at"] is None
    assert process.stop() == (0, "")
