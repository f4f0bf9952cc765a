"""What the commands of `weft keys` change: which keys come and go, and what is drafted for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from securesystemslib.signer import Key, SSlibKey
from tuf.api.metadata import Metadata, Root, Targets

from server.cli.output import say
from server.cli.passphrases import ask_passphrase, new_passphrase
from server.errors import BadCeremony, BadCommand
from server.tables import now
from server.trust.desk import Desk
from server.trust.documents import Frame
from server.trust.keys import (
    OFFLINE,
    ONLINE,
    WORDS,
    file_name,
    keys_in,
    load_public,
    load_signer,
    make_signer,
    role_of,
    write_private,
    write_public,
)
from server.trust.successors import Change, root_after, targets_after
from shared.metadata import PACKAGES, TARGETS

Published = dict[str, Metadata[Targets]]


@dataclass(frozen=True)
class Wish:
    """What a role should become.

    `replace`: keys to go, empty: all; `count`: how many there are afterwards, None: as many as
    before; `new`: public keys that others have made for it.
    """

    role: str
    replace: Sequence[str] = ()
    count: int | None = None
    threshold: int | None = None
    new: Sequence[Path] = ()


@dataclass
class Changing:
    """Turns wishes into changes and drafts.

    Keys of offline roles are made in `desk`'s folder, those of online roles in `online`, which the
    server reads.
    """

    desk: Desk
    online: Path
    published: Published = field(default_factory=dict)

    @property
    def root(self) -> Root:
        """The root in use."""
        return self.desk.root().signed

    def keyids(self, role: str) -> list[str]:
        """The keys of a role as they are."""
        if role != PACKAGES:
            return list(self.root.roles[role].keyids)
        found = [_packages(targets.signed) for targets in self.published.values()]
        return sorted({keyid for keyids in found for keyid in keyids})

    def in_use(self) -> set[str]:
        """All keys that sign something now."""
        return {keyid for role in WORDS for keyid in self.keyids(role)}

    def wanted(self, wish: Wish) -> Change:
        """The change that a wish amounts to; makes the keys that it needs. Raises BadKey."""
        current = self.keyids(wish.role)
        gone = list(wish.replace) or current
        count = len(current) if wish.count is None else wish.count
        given: list[Key] = [load_public(path) for path in wish.new]
        stay = [keyid for keyid in current if keyid not in gone]
        made = self.new_keys(wish.role, max(count, 1) - len(stay) - len(given))
        if wish.role == PACKAGES:
            keep_public(self.desk.folder, PACKAGES, given)
        return Change(wish.role, [*given, *made], gone, wish.threshold)

    def revoked(self, keyid: str) -> list[Change]:
        """What takes a key away; a new one comes where too few would be left.

        Raises BadCeremony `unknown_key`.
        """
        changes = []
        for role in [role for role in WORDS if keyid in self.keyids(role)]:
            threshold = self.root.roles[role].threshold if role != PACKAGES else 1
            lacking = threshold - (len(self.keyids(role)) - 1)
            changes.append(Change(role, self.new_keys(role, lacking), [keyid]))
        if not changes:
            raise BadCeremony("unknown_key", f"{keyid} signs nothing")
        return changes

    def new_keys(self, role: str, count: int) -> list[Key]:
        """Keys of a role that no document names yet: those that lie there, else new ones."""
        folder = self.desk.folder if role in OFFLINE else self.online
        known = self._ever_named()
        files = [f for f in keys_in(folder) if f.role == role and f.keyid not in known]
        unused = [f for f in files if f.is_private][: max(count, 0)]
        keys: list[Key] = [_public_of(folder, file.role, file.keyid) for file in unused]
        while len(keys) < count:
            keys.append(make_key(folder, role, is_read_by_server=folder == self.online))
        if role == PACKAGES:
            keep_public(self.desk.folder, role, keys)
        return keys

    def is_moved(self, server: Path) -> bool:
        """Whether no root or release key in use lies in the server's folder."""
        private = {file.keyid for file in keys_in(server) if file.is_private}
        return not any(private & set(self.root.roles[role].keyids) for role in OFFLINE)

    def draft(self, purpose: str, changes: Iterable[Change]) -> None:
        """Draft what the changes need: a root, and targets that the new release key signs.

        Raises BadCeremony `other_draft` and what is wrong with the changes.
        """
        listed = list(changes)
        of_root = [change for change in listed if change.role != PACKAGES]
        if of_root:
            path = self.desk.root_draft(self.root.version + 1)
            self.desk.draft(path, purpose, lambda: root_after(self.root, of_root, now()))
        packages = [key for c in listed if c.role == PACKAGES for key in c.add]
        if any(change.role in (TARGETS, PACKAGES) for change in listed):
            self.draft_targets(purpose, packages)

    def draft_root(self, purpose: str) -> None:
        """Draft the same root again, to hold longer."""
        path = self.desk.root_draft(self.root.version + 1)
        self.desk.draft(path, purpose, lambda: root_after(self.root, (), now()))

    def draft_targets(self, purpose: str, packages: Sequence[Key] = ()) -> None:
        """Draft the targets of every model again, with what they list."""
        for model, current in self.published.items():
            frame = Frame(model, now())

            def make(before: Targets = current.signed, frame: Frame = frame) -> Metadata[Targets]:
                return targets_after(before, frame, packages=packages)

            self.desk.draft(self.desk.targets_draft(model), purpose, make)

    def _ever_named(self) -> set[str]:
        """All keys that a document has named: those that were revoked do not come back."""
        roots = {keyid for root in self.desk.roots() for keyid in root.signed.keys}
        return roots | {k for t in self.published.values() for k in _packages(t.signed)}


def make_key(folder: Path, role: str, is_read_by_server: bool = False) -> SSlibKey:
    """Make a key of a role: under a passphrase, unless a server signs by it.

    Beside it lies the public key, to be handed on. Raises BadKey.
    """
    signer = make_signer()
    name = file_name(role, signer.public_key.keyid, ".pem")
    by_hand = role in OFFLINE and not is_read_by_server
    passphrase = new_passphrase(name) if by_hand else None
    path = write_private(folder, role, signer, passphrase)
    write_public(folder, role, signer.public_key)
    say(f"made {path}")
    return signer.public_key


def keep_public(folder: Path, role: str, keys: Iterable[Key]) -> None:
    """Keep public keys that whoever signs must know, unless they lie there already."""
    for key in keys:
        path = folder / file_name(role, key.keyid, ".pub")
        if isinstance(key, SSlibKey) and not path.exists():
            write_public(folder, role, key)
            say(f"kept {path}")


def roles_named(word: str) -> list[str]:
    """The roles of a command's word; `online` is all that the server signs. Raises BadKey."""
    return list(ONLINE) if word == "online" else [role_of(word)]


def retire(folder: Path, keyids: Iterable[str]) -> list[Path]:
    """Remove the private keys from a server's folder that sign nothing any more."""
    gone = [f.path for f in keys_in(folder) if f.keyid in set(keyids)]
    for path in gone:
        path.unlink()
    return gone


def require_threshold(count: int, threshold: int) -> None:
    """Raise BadCommand where more keys have to sign than there are."""
    if threshold > count:
        raise BadCommand("invalid", f"{threshold} of {count} keys cannot sign")


def _packages(targets: Targets) -> list[str]:
    return list(targets.get_delegated_role(PACKAGES).keyids)


def _public_of(folder: Path, role: str, keyid: str) -> Key:
    """The public key of a private one that lies there. Raises BadKey."""
    public = folder / file_name(role, keyid, ".pub")
    if public.is_file():
        return load_public(public)
    far = folder / file_name(role, keyid, ".json")
    if far.is_file():
        return load_public(far)
    # Whoever made it was cut off before it had a public key beside it.
    key = load_signer(folder / file_name(role, keyid, ".pem"), ask_passphrase()).public_key
    keep_public(folder, role, [key])
    return key
