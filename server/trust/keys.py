"""Keys that sign metadata: made, kept in files, and loaded to sign with.

A folder of keys holds, by the operator's word for the role and the key's id,

    root-1a2b3c4d.pem      a private Ed25519 key (PKCS#8), under a passphrase but for a server's
    release-5e6f7a8b.json  a key that lies elsewhere: {"uri": "awskms:...", "public": PEM}
    packages-9c0d1e2f.pub  a public key alone (PEM)

A key's id is the first 8 hex digits of the SHA-256 of its SubjectPublicKeyInfo (DER). Several keys
of a role lie side by side: which of them count is said by the metadata.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, Signer, SSlibKey

from server.errors import BadKey
from server.trust import signers
from server.trust.passphrases import NOBODY, Ask, check_closed, check_passphrase, read_file
from server.trust.sealed import seal
from server.trust.written import write_new
from shared.metadata import PACKAGES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP

#: What operators call the roles, and how the files of their keys begin.
WORDS: Final = {
    ROOT: "root",
    TARGETS: "release",
    PACKAGES: "packages",
    SNAPSHOT: "snapshot",
    TIMESTAMP: "timestamp",
}
OFFLINE, ONLINE = (ROOT, TARGETS), (PACKAGES, SNAPSHOT, TIMESTAMP)

_ROLES = {word: role for role, word in WORDS.items()}
_NAME = re.compile(rf"({'|'.join(_ROLES)})-([0-9a-f]{{8}})\.(pem|json|pub)")
_URI = re.compile(r"[a-z][a-z0-9+.-]+:")


@dataclass(frozen=True)
class KeyFile:
    """One file of a folder of keys."""

    role: str
    keyid: str
    path: Path

    @property
    def is_private(self) -> bool:
        """Whether one can sign by it."""
        return self.path.suffix != ".pub"


def role_of(word: str) -> str:
    """The role of an operator's word. Raises BadKey `unknown_role`."""
    if word not in _ROLES:
        raise BadKey("unknown_role", f"{word!r} is none of {', '.join(_ROLES)}")
    return _ROLES[word]


def named_role(path: Path) -> str:
    """The role that a key's file is named for. Raises BadKey `unknown_role`."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        told = f"{path.name!r} is not named as `weft keys make` does: root-1a2b3c4d.pub"
        raise BadKey("unknown_role", told)
    return _ROLES[match[1]]


def make_signer() -> CryptoSigner:
    """A new Ed25519 key."""
    return _as_signer(Ed25519PrivateKey.generate())


def short_id(key: SSlibKey) -> str:
    """The id that a public key has here."""
    return fingerprint(key)[:8]


def fingerprint(key: SSlibKey) -> str:
    """What nobody else's key has; ids are short enough for another key of the same to be found."""
    return hashlib.sha256(_public_bytes(key, Encoding.DER)).hexdigest()


def file_name(role: str, keyid: str, suffix: str) -> str:
    """How the file of a key is called."""
    return f"{WORDS[role]}-{keyid}{suffix}"


def write_private(
    folder: Path, role: str, signer: CryptoSigner, passphrase: bytes | None = None
) -> Path:
    """Keep a private key in a file of its own, 0600. Raises BadKey `weak_passphrase`, `exists`."""
    if passphrase is None:
        content = signer.private_bytes
    else:
        check_passphrase(passphrase)
        content = seal(cast("Ed25519PrivateKey", signer._private_key), passphrase)
    return _keep(folder, file_name(role, signer.public_key.keyid, ".pem"), content)


def write_public(folder: Path, role: str, key: SSlibKey) -> Path:
    """Keep the public key alone, to be handed to others."""
    return _keep(
        folder, file_name(role, key.keyid, ".pub"), _public_bytes(key, Encoding.PEM), 0o644
    )


def write_reference(folder: Path, role: str, uri: str, key: SSlibKey) -> Path:
    """Keep where a key lies that is in no file: `uri` as securesystemslib's signers have it."""
    check_uri(uri)
    content = {"uri": uri, "public": _public_bytes(key, Encoding.PEM).decode()}
    text = json.dumps(content, indent=2).encode() + b"\n"
    return _keep(folder, file_name(role, key.keyid, ".json"), text)


def keys_in(folder: Path) -> list[KeyFile]:
    """The files of keys in a folder, if it is there, by role, private ones first."""
    if not folder.is_dir():
        return []
    found = [
        KeyFile(_ROLES[match[1]], match[2], path)
        for path in sorted(folder.iterdir())
        if (match := _NAME.fullmatch(path.name))
    ]
    return sorted(found, key=lambda file: (list(WORDS).index(file.role), not file.is_private))


def load_signer(source: Path, ask: Ask) -> Signer:
    """Sign by a file of a private key, or by one that says where the key lies.

    Raises BadKey `not_found`, `open_to_others`, `malformed`, `wrong_passphrase`, `other_key`,
    `no_signer`.
    """
    content = read_file(source)
    if source.suffix == ".json":
        return _far_signer(source, content, ask)
    signer = _as_signer(_open_private(source, content, ask))
    _check_name(source, signer.public_key)
    return signer


def load_public(source: Path) -> SSlibKey:
    """The public key of a `.pub`, a `.json` or an unencrypted `.pem`. Raises BadKey."""
    content = read_file(source)
    if source.suffix == ".json":
        key = _reference(source, content)[1]
    elif b"PRIVATE KEY" in content:
        key = _as_signer(_open_private(source, content, NOBODY)).public_key
    else:
        key = _public(source, content)
    _check_name(source, key)
    return key


def check_uri(uri: str) -> None:
    """Raise BadKey `malformed` for what is no signer's URI."""
    if not _URI.match(uri):
        raise BadKey("malformed", f"{uri!r} is no URI such as awskms:<id> or hsm:<id>")


def _as_signer(key: Ed25519PrivateKey) -> CryptoSigner:
    public = SSlibKey.from_crypto(key.public_key(), keyid="none")
    public.keyid = short_id(public)
    return CryptoSigner(key, public)


def _open_private(path: Path, content: bytes, ask: Ask) -> Ed25519PrivateKey:
    encrypted = b"ENCRYPTED" in content
    if not encrypted:  # one under a passphrase may lie on a stick whose file system has no modes
        check_closed(path)
    passphrase = ask(path.name) if encrypted else None
    try:
        key = load_pem_private_key(content, passphrase)
    except (ValueError, TypeError) as error:
        if encrypted:
            raise BadKey("wrong_passphrase", f"{path}: the passphrase does not open it") from error
        raise BadKey("malformed", f"{path} holds no private key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey("malformed", f"{path} holds another kind of key than Ed25519")
    return key


def _far_signer(path: Path, content: bytes, ask: Ask) -> Signer:
    """A signer of KMS, HSM and the like: what it needs to import, and its errors, are its own."""
    uri, key = _reference(path, content)
    _check_name(path, key)
    try:
        if uri.startswith(signers.AWS):
            signers.import_aws()
        return Signer.from_priv_key_uri(uri, key, lambda what: ask(f"{what} of {uri}").decode())
    except BadKey:
        raise
    except Exception as error:
        raise BadKey("no_signer", f"{uri}: {error or type(error).__name__}") from error


def _reference(path: Path, content: bytes) -> tuple[str, SSlibKey]:
    try:
        told = json.loads(content)
        uri, public = str(told["uri"]), str(told["public"]).encode()
    except (ValueError, KeyError, TypeError) as error:
        raise BadKey("malformed", f"{path} does not say uri and public") from error
    check_uri(uri)
    return uri, _public(path, public)


def _public(path: Path, content: bytes) -> SSlibKey:
    try:
        key = SSlibKey.from_crypto(load_pem_public_key(content), keyid="none")
    except ValueError as error:
        raise BadKey("malformed", f"{path} holds no public key") from error
    key.keyid = short_id(key)
    return key


def _public_bytes(key: SSlibKey, encoding: Encoding) -> bytes:
    return key._crypto_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)


def _check_name(path: Path, key: SSlibKey) -> None:
    match = _NAME.fullmatch(path.name)
    if match is not None and match[2] != key.keyid:
        raise BadKey("other_key", f"{path} holds the key {key.keyid}")


def _keep(folder: Path, name: str, content: bytes, mode: int = 0o600) -> Path:
    path = folder / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_new(path, content, mode)
    except FileExistsError as error:
        raise BadKey("exists", f"{path} is there already") from error
    return path
