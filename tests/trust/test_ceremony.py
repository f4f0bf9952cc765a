"""What nobody should sign, and what is told before: documents alone, no files, no server."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Metadata, Root, TargetFile, Targets

from server.errors import BadCeremony, BadTrust
from server.trust import ceremony, successors
from server.trust.documents import Frame, KeyRole, draft_root, sign
from server.trust.keys import fingerprint, make_signer, short_id
from server.trust.successors import Change
from server.trust.wording import in_words, standing_in_words

NOW = datetime(2026, 3, 1, 10, 0, 0, tzinfo=UTC)
HOLDERS = ("ada", "ben", "cleo", "dora", "release", "packages", "snapshot", "timestamp")


@pytest.fixture(scope="module")
def signers() -> dict[str, CryptoSigner]:
    return {name: make_signer() for name in HOLDERS}


@pytest.fixture
def root(signers: dict[str, CryptoSigner]) -> Root:
    """Two of three must sign."""
    holders = [signers[name].public_key for name in ("ada", "ben", "cleo")]
    roles = {"root": KeyRole(holders, 2), "targets": KeyRole([signers["release"].public_key])}
    roles |= {name: KeyRole([signers[name].public_key]) for name in ("snapshot", "timestamp")}
    return draft_root(1, roles, NOW)


@pytest.fixture
def targets(signers: dict[str, CryptoSigner]) -> Targets:
    packages = [signers["packages"].public_key]
    listed = [TargetFile(10, {"sha256": "a" * 64}, "v/1")]
    return successors.targets_after(None, Frame("m", NOW), listed, packages=packages).signed


def refused(code: str) -> pytest.RaisesContext[BadCeremony]:
    return pytest.raises(BadCeremony, match=rf"\[ceremony\.{code}\]")


def test_a_root_that_follows_takes_keys_in_and_out(root: Root, signers: dict) -> None:
    before = deepcopy(root)
    dora, cleo = signers["dora"].public_key, signers["cleo"].public_key
    after = successors.root_after(root, [Change("root", [dora], [cleo.keyid], 3)], NOW).signed
    assert root == before
    assert (after.version, after.roles["root"].threshold) == (2, 3)
    assert cleo.keyid not in after.keys
    assert after.keys[dora.keyid] == dora
    successors.check_root(root, after, NOW)


def test_a_key_that_another_role_has_too_stays_known(root: Root, signers: dict) -> None:
    snapshot = signers["snapshot"].public_key
    shared = Change("timestamp", [snapshot], list(root.roles["timestamp"].keyids))
    both = successors.root_after(root, [shared], NOW).signed
    alone = Change("snapshot", [signers["dora"].public_key], [snapshot.keyid])
    assert snapshot.keyid in successors.root_after(both, [alone], NOW).signed.keys


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (Change("root", (), ["00000000"]), "unknown_key"),
        (Change("root", (), (), 4), "too_few_keys"),
    ],
)
def test_changes_that_make_no_root(root: Root, change: Change, code: str) -> None:
    with refused(code):
        successors.root_after(root, [change], NOW)


def test_taking_away_the_last_key_of_a_role(root: Root) -> None:
    with refused("too_few_keys"):
        successors.root_after(root, [Change("targets", (), root.roles["targets"].keyids)], NOW)


def _version(after: Root) -> None:
    after.version = 3


def _same_version(after: Root) -> None:
    after.version = 1


def _expired(after: Root) -> None:
    after.expires = NOW - timedelta(days=1)


def _threshold(after: Root) -> None:
    after.roles["root"].threshold = 4


def _inconsistent(after: Root) -> None:
    after.consistent_snapshot = False


def _missing_key(after: Root) -> None:
    del after.keys[after.roles["targets"].keyids[0]]


def _swapped_key(after: Root) -> None:
    """Another key under the id that holders know."""
    keyid = after.roles["root"].keyids[0]
    after.keys[keyid] = make_signer().public_key


def _same_id(after: Root) -> None:
    """As if somebody had searched for a key of the same id."""
    keyid = after.roles["root"].keyids[0]
    after.keys[keyid] = after.keys[after.roles["root"].keyids[1]]


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (_version, "not_successor"),
        (_same_version, "not_successor"),
        (_inconsistent, "not_successor"),
        (_expired, "expired"),
        (_threshold, "too_few_keys"),
        (_missing_key, "unknown_key"),
        (_swapped_key, "same_key"),
        (_same_id, "same_key"),
    ],
)
def test_a_root_that_nobody_should_sign(
    root: Root, edit: Callable[[Root], None], code: str
) -> None:
    after = successors.root_after(root, (), NOW).signed
    successors.check_root(root, after, NOW)
    edit(after)
    with refused(code):
        successors.check_root(root, after, NOW)


def test_two_keys_of_one_id_are_told_apart(
    root: Root, signers: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, thief = signers["ada"].public_key, make_signer().public_key
    thief.keyid = ada.keyid
    with refused("same_key"):
        successors.root_after(root, [Change("root", [thief])], NOW)
    after = successors.root_after(root, (), NOW).signed
    after.keys[ada.keyid] = thief
    monkeypatch.setattr(successors, "short_id", lambda key: key.keyid)  # the search has succeeded
    with refused("same_key"):
        successors.check_root(root, after, NOW)
    assert fingerprint(thief) != fingerprint(ada)


@pytest.mark.parametrize("path", ["v/0", "v/x", "p/" + "a" * 64, "v/1\x1b[2K", "../v/1"])
def test_targets_list_versions_alone(targets: Targets, path: str) -> None:
    targets.targets[path] = TargetFile(10, {"sha256": "b" * 64}, path)
    with refused("not_successor"):
        successors.check_targets(None, targets, "m", NOW)


def test_targets_that_nobody_should_sign(targets: Targets, signers: dict) -> None:
    successors.check_targets(None, targets, "m", NOW)
    with refused("other_model"):
        successors.check_targets(None, targets, "n", NOW)
    with refused("not_successor"):
        successors.check_targets(targets, targets, "m", NOW)
    with refused("expired"):
        successors.check_targets(None, targets, "m", NOW + timedelta(days=366))
    wider = deepcopy(targets)
    wider.delegations.roles["packages"].paths = ["*"]  # type: ignore[union-attr,index]
    with refused("not_successor"):
        successors.check_targets(None, wider, "m", NOW)
    more = deepcopy(targets)
    other = DelegatedRole("more", [signers["dora"].public_key.keyid], 1, False, ["v/*"])
    more.delegations.roles["more"] = other  # type: ignore[union-attr,index]
    with refused("not_successor"):
        successors.check_targets(None, more, "m", NOW)


def test_signatures_are_counted_by_the_old_root_and_the_new(root: Root, signers: dict) -> None:
    dora, ada = signers["dora"].public_key, signers["ada"].public_key
    change = Change("root", [dora], [ada.keyid])
    draft = successors.root_after(root, [change], NOW)
    for name, added, complete in (
        ("ada", True, False),
        ("dora", True, False),
        ("ben", True, True),
        ("ben", False, True),
    ):
        assert ceremony.sign_with(draft, signers[name], draft.signed, root) is added
        parts = ceremony.standing(draft, draft.signed, root)
        assert all(part.is_met for part in parts) is complete
    with refused("wrong_key"):
        ceremony.sign_with(draft, signers["release"], draft.signed, root)


def test_roots_in_line_are_verified_by_those_before(root: Root, signers: dict) -> None:
    two = [signers["ada"], signers["ben"]]
    first = sign(root, two)
    second = successors.root_after(root, (), NOW).signed
    third = successors.root_after(second, (), NOW).signed
    chain = [first, sign(second, two), sign(third, two)]
    found = ceremony.roots_in_line(chain, None)
    assert [r.signed.version for r in found] == [1, 2, 3]
    assert ceremony.roots_in_line(chain, found[-1]) == []
    with refused("not_successor"):
        ceremony.roots_in_line([chain[0], chain[2]], None)
    for forged in (sign(second, two[:1]), sign(second, [signers["dora"], signers["release"]])):
        with pytest.raises(BadTrust, match=r"bad_signature"):
            ceremony.roots_in_line([first, forged], None)


def test_words_tell_all_that_changes(root: Root, signers: dict) -> None:
    dora, cleo = signers["dora"].public_key, signers["cleo"].public_key
    draft = successors.root_after(root, [Change("root", [dora], [cleo.keyid], 3)], NOW)
    text = "\n".join(in_words(draft, root))
    assert "root 2 (follows 1), holds until 2028-02-29" in text
    assert "3 of 3 (was 2)" in text
    assert f"{dora.keyid} (new); no longer: {cleo.keyid}" in text
    assert fingerprint(dora) in text
    assert fingerprint(cleo) not in text
    told = standing_in_words(ceremony.standing(draft, draft.signed, root))
    assert told[0].startswith("root 1: 0 of 2 have signed (nobody); waited for:")


def test_words_tell_every_version(targets: Targets) -> None:
    after = successors.targets_after(
        targets, Frame("m", NOW), [TargetFile(20, {"sha256": "b" * 64}, "v/2")]
    )
    after.signed.targets["v/1"] = TargetFile(10, {"sha256": "c" * 64}, "v/1")
    text = "\n".join(in_words(after, targets))
    assert f"version 2 (new): weights {'b' * 64}" in text
    assert f"version 1 (CHANGED): weights {'c' * 64}" in text
    fewer = successors.targets_after(targets, Frame("m", NOW), dropped=["v/1"])
    assert "no longer: 1" in "\n".join(in_words(fewer, targets))


def test_words_paint_over_nothing(targets: Targets) -> None:
    targets.unrecognized_fields["weft-model"] = "m\x1b[1A\x1b[2Kharmless\n"
    lines = in_words(Metadata(targets), None)
    assert all(line.isprintable() for line in lines)


def test_the_fingerprint_is_of_what_is_signed_not_of_who_did(root: Root, signers: dict) -> None:
    draft = successors.root_after(root, (), NOW)
    before = in_words(draft, root)[-1]
    ceremony.sign_with(draft, signers["ada"], draft.signed, root)
    assert in_words(draft, root)[-1] == before
    other = successors.root_after(root, (), NOW + timedelta(days=1))
    assert in_words(other, root)[-1] != before


def test_ids_are_those_of_the_keys(signers: dict) -> None:
    keys = [signer.public_key for signer in signers.values()]
    assert [key.keyid for key in keys] == [short_id(key) for key in keys]
