"""Several people with a key each, on several machines, who hand drafts to one another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.site import Site, passphrases

__all__ = ["passphrases"]


class Holder:
    """Somebody with a folder of their own: a key, and the roots."""

    def __init__(self, site: Site, name: str, word: str) -> None:
        self.site, self.folder = site, site.folder / name
        made = site.alone("keys", "make", word, "--folder", self.folder)
        self.keyid = made["keyid"]
        [self.public] = self.folder.glob("*.pub")

    def bring(self, *files: Path) -> None:
        for file in files:
            shutil.copy(file, self.folder)

    def sign(self, name: str) -> Any:
        """Sign a draft that lies in the holder's folder."""
        return self.site.alone("keys", "sign", self.folder / name, "--yes")


@pytest.fixture
def holders(tmp_path: Path, serve: Any, weft: Any) -> tuple[Site, list[Holder], Holder]:
    """A first ceremony of three holders of root keys, of which two sign, and one of the release
    key; the server's keys are made on the server."""
    site = Site(tmp_path, serve, weft)
    roots = [Holder(site, name, "root") for name in ("ada", "ben", "cleo")]
    releaser = Holder(site, "rita", "release")
    for word in ("packages", "snapshot", "timestamp"):
        site.alone("keys", "make", word, "--folder", site.keys)
    news = [h.public for h in (*roots, releaser)] + sorted(site.keys.glob("*.pub"))
    words = ["keys", "init", "--folder", site.offline, "--threshold", 2, "--yes"]
    words += [word for path in news for word in ("--new", path)]
    assert site.refusal(*words)["code"] == "ceremony.incomplete"
    draft = site.offline / "1.root.draft.json"
    for holder, complete in zip(roots[:2], (False, True), strict=True):
        holder.bring(draft)
        assert holder.sign(draft.name)["complete"] is complete
        shutil.copy(holder.folder / draft.name, draft)
    site.alone(*words)
    assert site.private(site.offline) == []
    root = site.offline / "1.root.json"
    shutil.copy(root, site.keys)
    for holder in (*roots, releaser):
        holder.bring(root)
    site.start(keys_dir=site.keys)
    site.add_model()
    return site, roots, releaser


def test_a_release_where_the_key_has_no_network(
    holders: tuple[Site, list[Holder], Holder],
) -> None:
    site, _, rita = holders
    words = ("release", "digits", 1, "--folder", site.offline, "--yes")
    assert site.refusal(*words)["code"] == "ceremony.incomplete"
    draft = site.offline / "digits.targets.draft.json"
    rita.bring(draft)
    assert rita.sign(draft.name)["complete"] is True
    shutil.copy(rita.folder / draft.name, draft)
    site.done("keys", "publish", "--folder", site.offline)
    assert site.device().lists(1) == [1]
    nothing = site.refusal("keys", "publish", "--folder", site.offline)
    assert nothing["code"] == "ceremony.no_draft"


def test_a_stolen_root_key_is_revoked_by_the_other_two(
    holders: tuple[Site, list[Holder], Holder],
) -> None:
    site, (ada, ben, cleo), rita = holders
    words = ("release", "digits", 1, "--folder", site.offline, "--yes")
    [key] = rita.folder.glob("*.pem")
    site.done(*words, "--sign-with", key)
    device = site.device()
    assert device.lists(1) == [1]
    dora = Holder(site, "dora", "root")
    rotate = ("keys", "rotate", "root", "--replace", cleo.keyid, "--new", dora.public)
    options = ("--folder", site.offline, "--online", site.keys, "--yes")
    assert site.refusal(*rotate, *options)["code"] == "ceremony.incomplete"
    draft = site.offline / "2.root.draft.json"
    for holder in (ada, dora, ben):
        holder.bring(draft, *site.offline.glob("?.root.json"))
        holder.sign(draft.name)
        shutil.copy(holder.folder / draft.name, draft)
    before_all = site.done("keys", "status", "--folder", site.offline)
    assert before_all["drafts"][0]["standing"].startswith("signed")
    site.done("keys", "publish", "--folder", site.offline)
    assert set(site.keyids("root")) == {ada.keyid, ben.keyid, dora.keyid}
    assert device.lists(1) == [1]


def test_the_old_keys_alone_or_the_new_ones_alone_are_not_enough(
    holders: tuple[Site, list[Holder], Holder],
) -> None:
    site, (ada, ben, cleo), _ = holders
    fresh = [Holder(site, name, "root") for name in ("dora", "emil", "fay")]
    news = [word for holder in fresh for word in ("--new", holder.public)]
    options = ("--folder", site.offline, "--online", site.keys, "--yes")
    site.refusal("keys", "rotate", "root", *news, *options)
    draft = site.offline / "2.root.draft.json"
    plain = draft.read_bytes()
    for group in ((ada, ben, cleo), fresh):
        draft.write_bytes(plain)
        for holder in group:
            holder.bring(draft, site.offline / "1.root.json")
            answer = site._weft("keys", "sign", holder.folder / draft.name, "--yes", "--json")
            shutil.copy(holder.folder / draft.name, draft)
            assert answer.status == 0 or "wrong_key" in answer.err
        refused = site.refusal("keys", "publish", "--folder", site.offline)
        assert refused["code"] == "ceremony.incomplete"
    content = json.loads(draft.read_text())
    content.pop("weft-purpose")
    answer = site.running.client.post(
        "/api/v1/trust/publications", json={"root": json.dumps(content), "targets": {}}
    )
    assert answer.json()["code"] == "repository.bad_signature"
    assert site.done("keys", "status")["root_version"] == 1


def test_what_is_no_successor_is_not_signed(
    holders: tuple[Site, list[Holder], Holder],
) -> None:
    site, (ada, *_), _ = holders
    options = ("--folder", site.offline, "--online", site.keys, "--yes")
    site.refusal("keys", "renew", "root", *options[:2], "--yes")
    draft = site.offline / "2.root.draft.json"
    document = json.loads(draft.read_text())
    for version in (3, 1):
        document["signed"]["version"] = version
        name = f"{version}.root.draft.json"
        (ada.folder / name).write_text(json.dumps(document))
        refused = site.refusal("keys", "sign", ada.folder / name, "--yes")
        assert refused["code"] == "ceremony.not_successor"
    alone = site.refusal("keys", "sign", draft, "--folder", site.folder / "none", "--yes")
    assert alone["code"] == "ceremony.no_root"
    document["signed"] |= {"version": 2, "expires": "2020-01-01T00:00:00Z"}
    (ada.folder / draft.name).write_text(json.dumps(document))
    expired = site.refusal("keys", "sign", ada.folder / draft.name, "--yes")
    assert expired["code"] == "ceremony.expired"
    (ada.folder / draft.name).write_text("{}")
    damaged = site.refusal("keys", "sign", ada.folder / draft.name, "--yes")
    assert damaged["code"] == "repository.malformed"


def test_a_holder_sees_in_words_what_is_signed(
    holders: tuple[Site, list[Holder], Holder],
) -> None:
    site, (ada, _, cleo), _ = holders
    dora = Holder(site, "dora", "root")
    words = ("keys", "rotate", "root", "--replace", cleo.keyid, "--new", dora.public)
    site.refusal(*words, "--folder", site.offline, "--online", site.keys, "--yes")
    ada.bring(site.offline / "2.root.draft.json", site.offline / "1.root.json")
    shown = site._weft("keys", "sign", ada.folder / "2.root.draft.json", "--yes").err
    assert "root 2 (follows 1)" in shown
    assert f"{dora.keyid} (new)" in shown
    assert f"no longer: {cleo.keyid}" in shown
    assert "fingerprint" in shown


def test_a_threshold_of_release_keys(holders: tuple[Site, list[Holder], Holder]) -> None:
    site, (ada, ben, _), rita = holders
    sam = Holder(site, "sam", "release")
    keys = [path for h in (ada, ben) for path in h.folder.glob("*.pem")]
    words = ["keys", "rotate", "release", "--new", rita.public, "--new", sam.public]
    words += ["--count", 2, "--threshold", 2, "--folder", site.offline, "--online", site.keys]
    site.done(*words, "--yes", *(word for key in keys for word in ("--sign-with", key)))
    assert set(site.keyids("release")) == {rita.keyid, sam.keyid}
    [first], [second] = (list(h.folder.glob("*.pem")) for h in (rita, sam))
    words = ["release", "digits", 1, "--folder", site.offline, "--yes"]
    assert site.refusal(*words, "--sign-with", first)["code"] == "ceremony.incomplete"
    site.done(*words, "--sign-with", second)
    assert site.device().lists(1) == [1]
