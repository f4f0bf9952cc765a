"""The folder of a ceremony stays within itself, and believes no more than a client does."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.errors import BadCeremony, BadTrust
from server.trust.desk import Desk, load
from server.trust.documents import Frame, KeyRole, draft_root, sign
from server.trust.keys import make_signer
from server.trust.successors import targets_after
from tests.trust.test_ceremony import NOW


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A folder with a first root."""
    key = make_signer()
    roles = {n: KeyRole([key.public_key]) for n in ("root", "targets", "snapshot", "timestamp")}
    (tmp_path / "1.root.json").write_bytes(sign(draft_root(1, roles, NOW), [key]))
    return Desk(tmp_path)


@pytest.mark.parametrize("model", ["../m", "/etc/m", "a/b", "", ".m", "m\n", "m\x00"])
def test_no_model_s_name_leads_out_of_the_folder(desk: Desk, model: str) -> None:
    for act in (desk.targets, desk.targets_draft):
        with pytest.raises(BadCeremony, match=r"ceremony\.other_model"):
            act(model)


def test_a_folder_without_a_root_believes_nobody(tmp_path: Path, desk: Desk) -> None:
    empty = Desk(tmp_path / "empty")
    content = (desk.folder / "1.root.json").read_bytes()
    with pytest.raises(BadCeremony, match=r"ceremony\.no_root"):
        empty.learn_roots([content])
    assert empty.roots() == []


def test_a_root_that_was_changed_on_the_disk(desk: Desk) -> None:
    path = desk.folder / "1.root.json"
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":1,"more":2'))
    with pytest.raises(BadTrust, match=r"bad_signature"):
        desk.root()


def test_drafts_that_are_damaged_are_named(desk: Desk) -> None:
    path = desk.root_draft(2)
    path.write_text('{"signed": ')
    with pytest.raises(BadTrust, match=r"malformed"):
        load(path)
    with pytest.raises(BadCeremony, match=r"ceremony\.no_draft"):
        load(desk.root_draft(3))


def test_targets_by_another_key_are_not_kept(desk: Desk) -> None:
    thief = make_signer()
    draft = targets_after(None, Frame("m", NOW), packages=[thief.public_key])
    with pytest.raises(BadCeremony, match=r"ceremony\.forged"):
        desk.learn_targets("m", sign(draft.signed, [thief]))
    assert desk.targets("m") is None
