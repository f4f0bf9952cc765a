"""Signed metadata of a server that is none: what it publishes, and what an attacker could forge.

`Roots` are the root documents that all models of a server share, `Repository` is the rest of one
model. Keys come from names, so the same things done at the same `now` give the same bytes. A forger
has `edit`: for each role, what is changed before it is signed; `keys`: who signs; and `files`: what
is answered, byte for byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from shared.metadata import (
    ISSUED_FIELD,
    MODEL_FIELD,
    PACKAGES,
    ROLES,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    MetadataFile,
    known_bytes,
    pack,
    package_path,
    version_path,
)
from shared.wire import pinned

LIFETIMES = {ROOT: 730, TARGETS: 365, PACKAGES: 30, SNAPSHOT: 30, TIMESTAMP: 14}


def signer(name: str) -> CryptoSigner:
    """An Ed25519 key that is always the same for a name."""
    private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
    public = private.public_key().public_bytes_raw()
    keyid = hashlib.sha256(public).hexdigest()[:8]
    return CryptoSigner(private, SSlibKey(keyid, "ed25519", "ed25519", {"public": public.hex()}))


def sign(signed: Any, keys: list[CryptoSigner]) -> bytes:
    """The metadata as a file."""
    metadata = Metadata(signed)
    for key in keys:
        metadata.sign(key, append=True)
    return metadata.to_bytes(JSONSerializer(compact=True))


def just_now() -> datetime:
    """What metadata can tell: whole seconds."""
    return datetime.now(timezone.utc).replace(microsecond=0)


@dataclass
class Roots:
    """`keys`: who signs for a role, but for `packages`, which the release key delegates to."""

    now: datetime = field(default_factory=just_now)
    keys: dict[str, list[CryptoSigner]] = field(
        default_factory=lambda: {
            role: [signer(role)] for role in (ROOT, TARGETS, SNAPSHOT, TIMESTAMP)
        }
    )
    thresholds: dict[str, int] = field(default_factory=dict)
    edit: Callable[[Root], None] = lambda _: None
    files: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.signers: list[CryptoSigner] = []
        """Who has signed the newest one."""
        if not self.files:
            self.publish()

    def publish(self) -> bytes:
        """The next root, which names `keys`, signed by them and by those of the root before it."""
        root = Root(
            version=len(self.files) + 1,
            expires=self.now + timedelta(days=LIFETIMES[ROOT]),
            keys={
                key.public_key.keyid: key.public_key for keys in self.keys.values() for key in keys
            },
            roles={
                role: Role([key.public_key.keyid for key in keys], self.thresholds.get(role, 1))
                for role, keys in self.keys.items()
            },
            consistent_snapshot=True,
        )
        self.edit(root)
        both = {key.public_key.keyid: key for key in (*self.signers, *self.keys[ROOT])}
        self.signers = list(self.keys[ROOT])
        self.files.append(sign(root, list(both.values())))
        return self.files[-1]

    def rotate(self, role: str, *names: str) -> bytes:
        """Let these keys, and no others, sign for a role from the next root on."""
        self.keys[role] = [signer(name) for name in names]
        return self.publish()

    @property
    def sha256(self) -> str:
        """Of the first one."""
        return hashlib.sha256(self.files[0]).hexdigest()

    def token(self, secret: str) -> str:
        """An enrolment token that carries the first one."""
        return pinned(secret, self.sha256)


@dataclass
class Repository:
    """`versions`: weights digests by number; `packages`: what is told of each, by SHA-256."""

    model: str
    roots: Roots
    now: datetime = field(default_factory=just_now)
    versions: dict[int, str] = field(default_factory=dict)
    packages: dict[str, dict[str, Any]] = field(default_factory=dict)
    package_keys: list[CryptoSigner] = field(default_factory=lambda: [signer(PACKAGES)])
    lifetimes: dict[str, int] = field(default_factory=lambda: dict(LIFETIMES))
    edit: dict[str, Callable[[Any], None]] = field(default_factory=dict)
    files: dict[str, MetadataFile] = field(default_factory=dict)
    published: dict[tuple[str, int], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.publish(TARGETS, PACKAGES)

    def release(self, number: int, weights_digest: str) -> None:
        """Have the release key say that devices may run it."""
        if self.versions.get(number) != weights_digest:
            self.versions[number] = weights_digest
            self.publish(TARGETS)

    def withdraw(self, number: int) -> None:
        """... that they may not any more."""
        del self.versions[number]
        self.publish(TARGETS)

    def offer(self, sha256: str, size: int, base: str | None, result: str, method: str) -> None:
        """Have the online key list a package."""
        told = {"size": size, "base": base, "result": result, "method": method}
        if self.packages.get(sha256) != told:
            self.packages[sha256] = told
            self.publish(PACKAGES)

    def publish(self, *roles: str) -> None:
        """Sign these anew, and what must tell of them."""
        make = {TARGETS: self._targets, PACKAGES: self._packages, SNAPSHOT: self._snapshot}
        for role in (*roles, *([SNAPSHOT] if roles and roles != (TIMESTAMP,) else [])):
            if role in make:
                self._sign(role, make[role]())
        self._sign(TIMESTAMP, self._timestamp())

    def answer(self, held: Mapping[str, int]) -> bytes | None:
        """What a device lacks that holds these versions; None where that is nothing."""
        files = [
            MetadataFile(ROOT, number, content)
            for number, content in enumerate(self.roots.files, 1)
            if number > held.get(ROOT, 0)
        ]
        newest = [self.files[role] for role in ROLES if role in self.files]
        files += [file for file in newest if held.get(file.role) != file.version]
        return pack(files, known_bytes(self._known(held))) if files else None

    def _known(self, held: Mapping[str, int]) -> dict[str, bytes]:
        """What a device holds; nothing, where it may hold something else."""
        roots = {(ROOT, number): content for number, content in enumerate(self.roots.files, 1)}
        there = self.published | roots
        return {r: there[r, v] for r, v in held.items()} if held.items() <= there.keys() else {}

    def _sign(self, role: str, signed: Any) -> None:
        signed.unrecognized_fields[MODEL_FIELD] = self.model
        if role in self.edit:
            self.edit[role](signed)
        keys = self.package_keys if role == PACKAGES else self.roots.keys[role]
        content = sign(signed, keys)
        self.files[role] = MetadataFile(role, signed.version, content)
        self.published[role, signed.version] = content

    def _next(self, role: str) -> dict[str, Any]:
        """A version beyond all before it, also if what came before is forgotten; and the expiry."""
        before = self.files[role].version if role in self.files else 0
        expires = self.now + timedelta(days=self.lifetimes[role])
        return {"version": max(before + 1, int(self.now.timestamp())), "expires": expires}

    def _targets(self) -> Targets:
        keys = [key.public_key for key in self.package_keys]
        role = DelegatedRole(PACKAGES, [key.keyid for key in keys], 1, True, [package_path("*")])
        listed = {
            version_path(number): TargetFile(1000, {"sha256": digest}, version_path(number))
            for number, digest in self.versions.items()
        }
        delegations = Delegations({key.keyid: key for key in keys}, {PACKAGES: role})
        return Targets(**self._next(TARGETS), targets=listed, delegations=delegations)

    def _packages(self) -> Targets:
        listed = {}
        for sha256, told in self.packages.items():
            path, custom = package_path(sha256), {k: v for k, v in told.items() if k != "size"}
            file = TargetFile(told["size"], {"sha256": sha256}, path, {"custom": custom})
            listed[path] = file
        return Targets(**self._next(PACKAGES), targets=listed)

    def _snapshot(self) -> Snapshot:
        told = {f"{role}.json": MetaFile(self.files[role].version) for role in (TARGETS, PACKAGES)}
        return Snapshot(**self._next(SNAPSHOT), meta=told)

    def _timestamp(self) -> Timestamp:
        issued = {ISSUED_FIELD: self.now.isoformat().replace("+00:00", "Z")}
        told = MetaFile(self.files[SNAPSHOT].version)
        return Timestamp(**self._next(TIMESTAMP), snapshot_meta=told, unrecognized_fields=issued)
