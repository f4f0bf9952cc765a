"""TUF metadata as documents: drafted, signed, written compactly, read and verified.

Nothing here knows the database. Times are UTC; TUF keeps whole seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
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

from server.errors import BadTrust
from shared.metadata import (
    ISSUED_FIELD,
    MODEL_FIELD,
    PACKAGES,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
)

#: How long a signature holds from the day on which it is made.
VALID: Final = {
    ROOT: timedelta(days=730),
    TARGETS: timedelta(days=365),
    PACKAGES: timedelta(days=30),
    SNAPSHOT: timedelta(days=30),
    TIMESTAMP: timedelta(days=14),
}
PACKAGE_PATHS: Final = ["p/*"]

_Document = TypeVar("_Document", Root, Timestamp, Snapshot, Targets)
_Delegator = Root | Targets


@dataclass(frozen=True)
class KeyRole:
    """Which keys may sign a role, and how many of them must."""

    keys: Sequence[Key]
    threshold: int = 1


@dataclass(frozen=True)
class Frame:
    """What the documents of one publication have in common. `valid` overrides `VALID`."""

    model: str
    at: datetime
    valid: timedelta | None = None

    def end(self, role: str) -> datetime:
        """When a signature of now ends to hold; of a list of versions never sooner than usual."""
        asked = self.valid or VALID[role]
        return self.at + (max(asked, VALID[TARGETS]) if role == TARGETS else asked)

    @property
    def fields(self) -> dict[str, str]:
        """What all but the root say of themselves."""
        return {MODEL_FIELD: self.model}


def next_version(previous: int | None, at: datetime) -> int:
    """The version after `previous`: beyond all that was ever published, also after a restore.

    Hundredths of a second since 1970: no server publishes so often that it runs ahead of the clock.
    """
    return max((previous or 0) + 1, int(at.timestamp() * 100))


def draft_root(version: int, roles: Mapping[str, KeyRole], at: datetime) -> Root:
    """An unsigned root of `roles`: root, targets, snapshot and timestamp."""
    keys = {key.keyid: key for role in roles.values() for key in role.keys}
    named = {n: Role([key.keyid for key in r.keys], r.threshold) for n, r in roles.items()}
    return Root(version=version, expires=at + VALID[ROOT], keys=keys, roles=named)


def draft_targets(
    frame: Frame, version: int, targets: Iterable[TargetFile], packages: Delegations
) -> Targets:
    """An unsigned list of released versions, which hands packages on to their keys."""
    return Targets(
        version=version,
        expires=frame.end(TARGETS),
        targets={target.path: target for target in targets},
        delegations=packages,
        unrecognized_fields=frame.fields,
    )


def delegate_packages(role: KeyRole) -> Delegations:
    """The delegation of all packages to their keys, and to nobody else."""
    named = DelegatedRole(
        PACKAGES, [key.keyid for key in role.keys], role.threshold, True, PACKAGE_PATHS
    )
    return Delegations({key.keyid: key for key in role.keys}, {PACKAGES: named})


def draft_packages(frame: Frame, version: int, targets: Iterable[TargetFile]) -> Targets:
    """An unsigned list of packages."""
    return Targets(
        version=version,
        expires=frame.end(PACKAGES),
        targets={target.path: target for target in targets},
        unrecognized_fields=frame.fields,
    )


def draft_snapshot(frame: Frame, version: int, targets: int, packages: int) -> Snapshot:
    """An unsigned snapshot of these versions."""
    meta = {f"{TARGETS}.json": MetaFile(targets), f"{PACKAGES}.json": MetaFile(packages)}
    return Snapshot(
        version=version,
        expires=frame.end(SNAPSHOT),
        meta=meta,
        unrecognized_fields=frame.fields,
    )


def draft_timestamp(frame: Frame, version: int, snapshot: int) -> Timestamp:
    """An unsigned timestamp; it says when it was made."""
    issued = frame.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Timestamp(
        version=version,
        expires=frame.end(TIMESTAMP),
        snapshot_meta=MetaFile(snapshot),
        unrecognized_fields=frame.fields | {ISSUED_FIELD: issued},
    )


def sign(document: _Document, signers: Iterable[Signer]) -> bytes:
    """The document with a signature by each. Raises BadTrust `signing_failed`."""
    metadata = Metadata(document)
    for signer in signers:
        _sign(metadata, signer)
    return metadata.to_bytes()


def _sign(metadata: Metadata[Any], signer: Signer) -> None:
    try:
        metadata.sign(signer, append=True)
    except UnsignedMetadataError as error:
        told = f"the key {signer.public_key.keyid} does not sign: {error.__cause__ or error}"
        raise BadTrust("signing_failed", told) from error


def read(content: str | bytes, kind: type[_Document]) -> Metadata[_Document]:
    """A document of the kind. Raises BadTrust `malformed`."""
    data = content.encode() if isinstance(content, str) else content
    try:
        metadata: Metadata[_Document] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise BadTrust("malformed", f"no metadata: {error.__cause__ or error}") from error
    if not isinstance(metadata.signed, kind):
        raise BadTrust("malformed", f"{metadata.signed.type}, and not {kind.type}")
    return metadata


def is_signed(by: _Delegator, role: str, metadata: Metadata[_Document]) -> bool:
    """Whether enough keys of the role, as `by` names them, have signed."""
    try:
        by.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (UnsignedMetadataError, ValueError):
        return False
    return True


def require_signed(by: _Delegator, role: str, metadata: Metadata[_Document]) -> None:
    """Raise BadTrust `bad_signature` unless enough keys of the role have signed."""
    named = by.get_delegated_role(role)
    if not is_signed(by, role, metadata):
        found = by.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
        told = f"{role}: signed by {len(found.signed)} of the keys, {named.threshold} are asked for"
        raise BadTrust("bad_signature", told)
