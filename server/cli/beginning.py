"""How trust begins: a first ceremony, or the keys that a server has made itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root

from server.cli.ceremony import Signing
from server.cli.changing import Changing, keep_public, require_threshold
from server.errors import BadCeremony
from server.tables import now
from server.trust.ceremony import finished
from server.trust.desk import Desk, load
from server.trust.documents import KeyRole, draft_root
from server.trust.keys import (
    OFFLINE,
    ONLINE,
    keys_in,
    load_public,
    named_role,
)
from server.trust.written import write_new
from shared.metadata import PACKAGES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP

PURPOSE = "keys init"
ROOT_FILE = "1.root.json"


@dataclass(frozen=True)
class Beginning:
    """A first ceremony.

    `online` None: the server's keys were made on the server, and are `given` as public keys, as are
    those of other holders.
    """

    folder: Path
    online: Path | None
    count: int
    threshold: int
    given: Sequence[Path]

    def run(self, yes: bool) -> dict[str, Any]:
        """Make the keys and the root that lack, sign as far as the keys at hand go, and install.

        Raises BadCeremony `exists`, `incomplete`, `not_confirmed`; BadKey.
        """
        require_threshold(self.count, self.threshold)
        desk = Desk(self.folder)
        draft = desk.root_draft(1)
        places = [self.folder, *([self.online] if self.online else [])]
        if not draft.exists() and any((place / ROOT_FILE).exists() for place in places):
            raise BadCeremony("exists", f"{ROOT_FILE} is there already")
        desk.draft(draft, PURPOSE, lambda: self._root(desk))
        signing = Signing(desk, yes)
        signing.sign([draft])
        if lacking := signing.lacking([draft]):
            raise BadCeremony("incomplete", "; ".join(lacking))
        for place in places:
            _install(place / ROOT_FILE, finished(load(draft)))
        draft.unlink()
        return {"root": [str(place / ROOT_FILE) for place in places]}

    def _root(self, desk: Desk) -> Metadata[Root]:
        changing = Changing(desk, self.online or self.folder)
        keys: dict[str, list[Key]] = {role: [] for role in (*OFFLINE, *ONLINE)}
        for path in self.given:
            keys[named_role(path)].append(load_public(path))
        for role, found in keys.items():
            wanted = self.count if role == ROOT else 1
            found += changing.new_keys(role, wanted - len(found))
        keep_public(self.folder, PACKAGES, keys[PACKAGES])
        roles = {ROOT: KeyRole(keys[ROOT], self.threshold)}
        roles |= {role: KeyRole(keys[role]) for role in (TARGETS, SNAPSHOT, TIMESTAMP)}
        return Metadata(draft_root(1, roles, now()))


def adopt(folder: Path, server: Path) -> None:
    """Let a new folder trust what a server on this machine has begun with.

    Raises BadCeremony `no_root`, `exists` where the folder belongs to another server.
    """
    first = server / ROOT_FILE
    if not first.is_file():
        raise BadCeremony("no_root", f"{server} has no {ROOT_FILE}")
    if not _install(folder / ROOT_FILE, first.read_bytes()):
        raise BadCeremony("exists", f"{folder} belongs to another server")
    files = [file for file in keys_in(server) if file.role == PACKAGES]
    keep_public(folder, PACKAGES, [load_public(file.path) for file in files])


def offline_keys(server: Path) -> dict[str, Path]:
    """The root and release keys that lie in a server's folder, by id."""
    found = [file for file in keys_in(server) if file.is_private and file.role in OFFLINE]
    return {file.keyid: file.path for file in found}


def _install(path: Path, content: bytes) -> bool:
    """Write the file unless it is there; False where it is there and says something else."""
    if path.exists():
        return path.read_bytes() == content
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_new(path, content, 0o644)
    return True
