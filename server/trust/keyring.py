"""The keys at hand: what this process can sign with, read from the keys folder.

Another process may put keys there (a rotation): where one is lacking, the folder is read again.
"""

from __future__ import annotations

import threading
from pathlib import Path

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Role

from server.errors import BadKey, BadTrust
from server.trust.documents import KeyRole
from server.trust.keys import WORDS, keys_in, load_public, load_signer
from server.trust.passphrases import NOBODY


class Keyring:
    """Signers by key id; safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._signers: dict[str, Signer] = {}
        self._lock = threading.Lock()

    def holds(self, role: Role) -> bool:
        """Whether enough keys of the role are at hand."""
        return len(self._found(role)) >= role.threshold

    def signers(self, name: str, role: Role) -> list[Signer]:
        """As many as the role needs. Raises BadTrust `key_missing`, BadKey of a bad file."""
        found = self._found(role)
        if len(found) < role.threshold:
            told = f"{self.folder} has {len(found)} of {role.threshold} keys of {WORDS[name]}"
            raise BadTrust("key_missing", told)
        return found[: role.threshold]

    def own(self, name: str) -> KeyRole:
        """The role as the folder has it: all keys of its name. Raises BadTrust `key_missing`."""
        keys: dict[str, Key] = {
            file.keyid: load_public(file.path) for file in keys_in(self.folder) if file.role == name
        }
        if not keys:
            raise BadTrust("key_missing", f"{self.folder} has no key of {WORDS[name]}")
        return KeyRole(list(keys.values()))

    def _found(self, role: Role) -> list[Signer]:
        with self._lock:
            if sum(keyid in self._signers for keyid in role.keyids) < role.threshold:
                self._load(role)
            return [self._signers[keyid] for keyid in role.keyids if keyid in self._signers]

    def _load(self, role: Role) -> None:
        """Only what is asked for: a key of another role may lie there under a passphrase."""
        for file in keys_in(self.folder):
            if file.is_private and file.keyid in role.keyids and file.keyid not in self._signers:
                try:
                    self._signers[file.keyid] = load_signer(file.path, NOBODY)
                except BadKey as error:
                    if error.code != "key.no_passphrase":
                        raise
