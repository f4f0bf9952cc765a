"""Lists of versions and roots that were signed elsewhere: verified first, or nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest
from securesystemslib.signer import Signer
from tuf.api.exceptions import BadVersionNumberError
from tuf.api.metadata import DelegatedRole, Root, TargetFile, Targets, Timestamp

from server.db import reading
from server.errors import BadTrust
from server.tables import now
from server.trust.documents import KeyRole, delegate_packages, read, sign
from server.trust.keys import keys_in, make_signer, write_private
from shared.metadata import MODEL_FIELD, PACKAGES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from tests.trust.shop import Shop, TufDevice, find_model, find_version, rows_of, sha

Make = Callable[..., TufDevice]


class Office:
    """Where root and release key lie, once they are off the server."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.keys = shop.take_offline(ROOT, TARGETS)

    def draft(self, *numbers: int) -> Targets:
        """As the server drafts it, with these versions added."""
        with reading(self.shop.engine) as session:
            versions = [find_version(session, number) for number in numbers]
            content = self.shop.trust.draft_targets(session, find_model(session), versions)
        return read(content, Targets).signed

    def send(self, targets: Targets, *signers: Signer) -> None:
        content = sign(targets, signers or [self.keys[TARGETS]])
        with self.shop.writing() as session:
            self.shop.trust.accept_targets(session, find_model(session), content)

    def root(self) -> Root:
        """The next one, unsigned."""
        with reading(self.shop.engine) as session:
            root = deepcopy(self.shop.trust.root(session))
        root.version += 1
        return root

    def send_root(self, root: Root, *signers: Signer, **targets: bytes) -> None:
        content = sign(root, signers or [self.keys[ROOT]])
        with self.shop.writing() as session:
            self.shop.trust.accept_root(session, content, targets)

    def replace_key(self, root: Root, role: str) -> Signer:
        """Another key of a role instead of the one in use."""
        new = make_signer()
        root.revoke_key(root.roles[role].keyids[0], role)
        root.add_key(new.public_key, role)
        return new


@pytest.fixture
def office(shop: Shop) -> Office:
    shop.release(1)
    return Office(shop)


def refuses(office: Office, code: str, send: Callable[..., None], *what: Any, **more: Any) -> str:
    """What it is refused with; nothing has changed."""
    before = rows_of(office.shop)
    with pytest.raises(BadTrust) as caught:
        send(*what, **more)
    assert caught.value.code == f"repository.{code}"
    assert rows_of(office.shop) == before
    return caught.value.message


def test_a_list_signed_by_the_release_key_is_published(office: Office, device: Make) -> None:
    office.send(office.draft(2))
    assert device().lists(1, 2, 3) == [1, 2]
    with reading(office.shop.engine) as session:
        assert [find_version(session, n).is_released for n in (1, 2, 3)] == [True, True, False]


def test_what_a_list_leaves_out_is_released_no_more(office: Office, device: Make) -> None:
    draft = office.draft(2)
    del draft.targets["v/1"]
    office.send(draft)
    assert device().lists(1, 2) == [2]
    with reading(office.shop.engine) as session:
        assert not find_version(session, 1).is_released


def test_the_first_list_of_a_model_is_published(office: Office, device: Make) -> None:
    office.shop.register("fresh", versions=1)
    with office.shop.writing() as session:
        model = find_model(session, "fresh")
        draft = office.shop.trust.draft_targets(session, model, [find_version(session, 1, "fresh")])
        content = sign(read(draft, Targets).signed, [office.keys[TARGETS]])
        office.shop.trust.accept_targets(session, model, content)
    assert device(model="fresh").lists(1) == [1]


def test_a_list_of_nobodys_key_is_refused(office: Office) -> None:
    told = refuses(office, "bad_signature", office.send, office.draft(2), make_signer())
    assert told == "targets: signed by 0 of the keys, 1 are asked for"


def test_a_list_of_a_key_of_another_role_is_refused(office: Office) -> None:
    refuses(office, "bad_signature", office.send, office.draft(2), office.keys[ROOT])


def test_a_list_that_was_changed_after_it_was_signed_is_refused(office: Office) -> None:
    content = sign(office.draft(2), [office.keys[TARGETS]])
    changed = content.replace(sha("m 2").encode(), sha("m 3").encode())

    def send() -> None:
        with office.shop.writing() as session:
            office.shop.trust.accept_targets(session, find_model(session), changed)

    refuses(office, "bad_signature", send)


def test_a_list_of_another_model_is_refused(office: Office) -> None:
    draft = office.draft(2)
    draft.unrecognized_fields[MODEL_FIELD] = "other"
    refuses(office, "other_model", office.send, draft)
    draft.unrecognized_fields.clear()
    refuses(office, "other_model", office.send, draft)


def test_a_list_that_does_not_follow_the_one_in_use_is_refused(office: Office) -> None:
    draft = office.draft(2)
    office.send(draft)
    refuses(office, "outdated", office.send, draft)


def test_a_list_that_has_expired_is_refused(office: Office) -> None:
    draft = office.draft(2)
    draft.expires = now() - timedelta(minutes=1)
    refuses(office, "expired", office.send, draft)


@pytest.mark.parametrize(
    "wrong",
    [
        TargetFile(1, {"sha256": sha("m 2")}, "v/2", {"custom": {"schema": sha("schema")}}),
        TargetFile(42, {"sha256": sha("else")}, "v/2", {"custom": {"schema": sha("schema")}}),
        TargetFile(42, {"sha256": sha("m 2")}, "v/9", {"custom": {"schema": sha("schema")}}),
        TargetFile(42, {"sha256": sha("m 2")}, "p/0", {"custom": {"schema": sha("schema")}}),
        TargetFile(42, {"sha256": sha("m 2")}, "v/2", {"custom": {"schema": sha("else")}}),
    ],
    ids=["length", "digest", "number", "package", "schema"],
)
def test_a_list_of_what_this_server_does_not_have_is_refused(
    office: Office, wrong: TargetFile
) -> None:
    draft = office.draft(2)
    draft.targets[wrong.path] = wrong
    assert wrong.path in refuses(office, "unknown_version", office.send, draft)


def test_a_list_that_brings_back_a_withdrawn_version_is_refused(office: Office) -> None:
    office.send(office.draft(2))
    draft = office.draft()
    office.shop.withdraw(2)
    refuses(office, "unknown_version", office.send, draft)


def test_a_signed_list_completes_what_was_withdrawn(office: Office, device: Make) -> None:
    office.send(office.draft(2))
    assert office.shop.withdraw(2) is False
    office.send(office.draft())
    assert device().lists(1, 2) == [1]
    with reading(office.shop.engine) as session:
        assert office.shop.trust.concerns(session) == []


def test_a_list_must_hand_packages_to_this_server(office: Office) -> None:
    stranger = make_signer().public_key
    draft = office.draft(2)
    draft.delegations = delegate_packages(KeyRole([stranger]))
    refuses(office, "key_missing", office.send, draft)
    draft.delegations = None
    refuses(office, "bad_delegation", office.send, draft)


def test_a_list_must_hand_on_nothing_else(office: Office) -> None:
    stranger = make_signer().public_key
    draft = office.draft(2)
    assert draft.delegations is not None
    assert draft.delegations.roles is not None
    known = dict(draft.delegations.roles)
    versions = DelegatedRole("versions", [stranger.keyid], 1, True, ["v/*"])
    draft.delegations.roles = known | {"versions": versions}
    draft.delegations.keys[stranger.keyid] = stranger
    refuses(office, "bad_delegation", office.send, draft)
    draft.delegations.roles = known
    known[PACKAGES].paths = ["*"]
    refuses(office, "bad_delegation", office.send, draft)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"signed": {}}'])
def test_what_is_no_metadata_is_refused(office: Office, content: bytes) -> None:
    def send() -> None:
        with office.shop.writing() as session:
            office.shop.trust.accept_targets(session, find_model(session), content)

    def send_root() -> None:
        with office.shop.writing() as session:
            office.shop.trust.accept_root(session, content)

    refuses(office, "malformed", send)
    refuses(office, "malformed", send_root)


def test_a_root_is_no_list(office: Office) -> None:
    def send() -> None:
        with office.shop.writing() as session:
            root = sign(office.root(), [office.keys[ROOT]])
            office.shop.trust.accept_targets(session, find_model(session), root)

    assert refuses(office, "malformed", send) == "root, and not targets"


def test_roots_follow_one_another_and_a_device_that_was_away_takes_them_all(
    office: Office, device: Make
) -> None:
    camera, away = device(), device("away")
    camera.refresh()
    for _ in range(3):
        root = office.root()
        before, office.keys[ROOT] = office.keys[ROOT], office.replace_key(root, ROOT)
        office.send_root(root, before, office.keys[ROOT])
        assert camera.lists(1) == [1]
    assert camera.versions[ROOT] == 4
    assert away.lists(1) == [1]
    assert away.versions[ROOT] == 4


@pytest.mark.parametrize("version", [1, 3])
def test_a_root_that_is_not_the_next_is_refused(office: Office, version: int) -> None:
    root = office.root()
    root.version = version
    refuses(office, "outdated", office.send_root, root)


def test_a_root_needs_the_keys_of_the_one_before_and_its_own(office: Office) -> None:
    root = office.root()
    new = office.replace_key(root, ROOT)
    refuses(office, "bad_signature", office.send_root, root, new)
    refuses(office, "bad_signature", office.send_root, root, office.keys[ROOT])
    office.send_root(root, office.keys[ROOT], new)


def test_a_root_needs_as_many_keys_as_its_threshold(office: Office) -> None:
    root = office.root()
    second = make_signer()
    root.add_key(second.public_key, ROOT)
    root.roles[ROOT].threshold = 2
    refuses(office, "bad_signature", office.send_root, root, office.keys[ROOT])
    office.send_root(root, office.keys[ROOT], second)


def test_a_root_that_has_expired_is_refused(office: Office) -> None:
    root = office.root()
    root.expires = now() - timedelta(minutes=1)
    refuses(office, "expired", office.send_root, root)


@pytest.mark.parametrize("role", [SNAPSHOT, TIMESTAMP])
def test_a_root_whose_online_keys_are_not_here_is_refused(office: Office, role: str) -> None:
    root = office.root()
    new = office.replace_key(root, role)
    assert role in refuses(office, "key_missing", office.send_root, root)
    write_private(office.shop.trust.keyring.folder, role, new)
    office.send_root(root)


def test_a_root_without_the_release_key_takes_new_lists_along(office: Office, device: Make) -> None:
    camera = device()
    camera.refresh()
    root = office.root()
    new = office.replace_key(root, TARGETS)
    draft = office.draft(2)
    told = refuses(office, "targets_missing", office.send_root, root)
    assert told == "m: signed by no key in use"
    by_old = sign(draft, [office.keys[TARGETS]])
    refuses(office, "bad_signature", office.send_root, root, m=by_old)
    refuses(office, "other_model", office.send_root, root, n=by_old)
    office.send_root(root, m=sign(draft, [new]))
    assert camera.lists(1, 2) == device("new").lists(1, 2) == [1, 2]
    refuses(office, "bad_signature", office.send, office.draft(3))
    office.send(office.draft(3), new)


def test_other_keys_of_packages_come_by_a_new_list(office: Office, device: Make) -> None:
    package = office.shop.build(1)
    office.shop.offer(package)
    camera = device()
    assert camera.lists(1, package) == [1, package]
    new = make_signer()
    write_private(office.shop.trust.keyring.folder, PACKAGES, new)
    draft = office.draft()
    draft.delegations = delegate_packages(KeyRole([new.public_key]))
    office.send(draft)
    assert camera.lists(1, package) == device("new").lists(1, package) == [1, package]
    assert new.public_key.keyid.encode() in camera.held[PACKAGES]


def test_a_new_model_hands_packages_to_the_keys_of_the_others(office: Office) -> None:
    """Not to all that lie in the folder: one of them may be there still, and be revoked."""
    office.shop.register("n", versions=1)
    revoked = [f for f in keys_in(office.shop.trust.keyring.folder) if f.role == PACKAGES]
    new = make_signer()
    write_private(office.shop.trust.keyring.folder, PACKAGES, new)
    targets = office.draft(1)
    targets.delegations = delegate_packages(KeyRole([new.public_key]))
    office.send(targets)
    with reading(office.shop.engine) as session:
        version = find_version(session, 1, "n")
        draft = office.shop.trust.draft_targets(session, version.model, [version])
    role = read(draft, Targets).signed.get_delegated_role(PACKAGES)
    assert role.keyids == [new.public_key.keyid], f"revoked: {revoked[0].keyid}"


def test_devices_come_back_from_versions_that_a_thief_ran_ahead_with(
    office: Office, device: Make
) -> None:
    """A stolen timestamp key can sign versions that nobody reaches; another key ends that."""
    camera = device()
    camera.refresh()
    ahead = read(camera.held[TIMESTAMP], Timestamp).signed
    ahead.version = 10**30
    stolen = office.shop.trust.keyring.signers(TIMESTAMP, office.root().roles[TIMESTAMP])
    (camera.folder / "timestamp.json").write_bytes(sign(ahead, stolen))
    with pytest.raises(BadVersionNumberError):
        camera.refresh()
    root = office.root()
    for role in (SNAPSHOT, TIMESTAMP):
        new = office.replace_key(root, role)
        write_private(office.shop.trust.keyring.folder, role, new)
    office.send_root(root)
    assert camera.lists(1) == [1]


def test_a_server_with_all_keys_signs_its_lists_by_a_new_release_key(
    shop: Shop, device: Make
) -> None:
    shop.release(1)
    camera = device()
    camera.refresh()
    with reading(shop.engine) as session:
        root = deepcopy(shop.trust.root(session))
    new = make_signer()
    write_private(shop.trust.keyring.folder, TARGETS, new)
    root.revoke_key(root.roles[TARGETS].keyids[0], TARGETS)
    root.add_key(new.public_key, TARGETS)
    root.version = 2
    with shop.writing() as session:
        content = sign(root, shop.trust.keyring.signers(ROOT, root.roles[ROOT]))
        shop.trust.accept_root(session, content)
    assert camera.lists(1) == device("new").lists(1) == [1]
    assert new.public_key.keyid.encode() in camera.held[TARGETS]
