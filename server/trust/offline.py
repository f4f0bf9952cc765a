"""Taking what was signed elsewhere: lists of versions, and roots.

Whatever is taken is verified first, against the root in use, and against what this server can go on
with: metadata that devices would refuse, or that nobody here could renew, are never published.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session
from tuf.api.metadata import Root, Targets

from server.errors import BadTrust
from server.tables import Model, TrustRoot, Version
from server.trust import documents, listing
from server.trust.documents import PACKAGE_PATHS
from server.trust.edition import Edition
from server.trust.keyring import Keyring
from shared.metadata import MODEL_FIELD, PACKAGES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP


def check_root(current: Root | None, content: bytes) -> Root:
    """A root that may follow `current`. Raises BadTrust."""
    metadata = documents.read(content, Root)
    root, wanted = metadata.signed, current.version + 1 if current else 1
    if root.version != wanted:
        raise BadTrust("outdated", f"the next root is version {wanted}, this is {root.version}")
    if current is not None:
        documents.require_signed(current, ROOT, metadata)
    documents.require_signed(root, ROOT, metadata)
    return root


def require_fresh(root: Root, at: datetime) -> None:
    """Raise BadTrust `expired` where devices would refuse the root."""
    if root.is_expired(at):
        raise BadTrust("expired", f"root {root.version} held until {root.expires:%Y-%m-%d %H:%M}Z")


def require_online_keys(root: Root, keyring: Keyring) -> None:
    """Raise BadTrust `key_missing` where this server cannot sign what the root leaves to it."""
    for role in (SNAPSHOT, TIMESTAMP):
        keyring.signers(role, root.roles[role])


def check_targets(
    session: Session, root: Root, model: Model, current: Targets | None, content: bytes
) -> Targets:
    """A list of versions of the model that may follow `current`. Raises BadTrust."""
    metadata = documents.read(content, Targets)
    targets = metadata.signed
    named = targets.unrecognized_fields.get(MODEL_FIELD)
    if named != model.name:
        raise BadTrust("other_model", f"it is of {named!r}, and not of {model.name}")
    if current is not None and targets.version <= current.version:
        told = f"version {targets.version} does not follow {current.version}"
        raise BadTrust("outdated", told)
    documents.require_signed(root, TARGETS, metadata)
    _check_versions(session, model, targets)
    return targets


def check_delegation(targets: Targets, keyring: Keyring) -> None:
    """Raise BadTrust unless packages are handed to keys of this server, and nothing else is."""
    delegated = targets.delegations.roles if targets.delegations else None
    role = (delegated or {}).get(PACKAGES)
    if role is None or len(delegated or ()) != 1 or role.paths != PACKAGE_PATHS:
        raise BadTrust("bad_delegation", f"it must hand {PACKAGE_PATHS[0]} to packages alone")
    keyring.signers(PACKAGES, role)


def _check_versions(session: Session, model: Model, targets: Targets) -> None:
    query = select(Version).where(Version.model_id == model.id)
    known = {
        target.path: target
        for version in session.scalars(query)
        if version.withdrawn_at is None
        for target in [listing.version_target(version)]
    }
    for path, target in targets.targets.items():
        if known.get(path) != target:
            told = f"{path} with {target.hashes} is no version of {model.name}, or was withdrawn"
            raise BadTrust("unknown_version", told)


def put_root(session: Session, root: Root, content: bytes) -> None:
    """Store a root that was checked."""
    row = TrustRoot(version=root.version, content=content.decode(), expires_at=root.expires)
    session.add(row)
    session.flush()


def resign(session: Session, edition: Edition, targets: bytes | None, can_release: bool) -> bool:
    """Have the model's metadata be signed by the keys of the root in use; False: they were.

    Raises BadTrust `targets_missing`.
    """
    if targets is not None:
        edition.put_targets(targets)
    elif not edition.is_sound(TARGETS):
        if not can_release:
            raise BadTrust("targets_missing", f"{edition.model.name}: signed by no key in use")
        sign_targets_again(session, edition)
    elif all(map(edition.is_sound, (PACKAGES, SNAPSHOT, TIMESTAMP))):
        return False
    edition.publish()
    return True


def sign_targets_again(session: Session, edition: Edition) -> None:
    """List the same versions, signed by the release key of today. Raises BadTrust `key_missing`.

    Not those that were withdrawn while that key lay elsewhere, and could not take them off.
    """
    listed = edition.targets
    gone = listing.withdrawn_paths(session, edition.model)
    files = listed.signed.targets.values() if listed else ()
    edition.sign_targets(file for file in files if file.path not in gone)
    listing.note_listed(session, edition.model, edition.targets)


def targets_by_model(session: Session, given: Mapping[str, bytes]) -> dict[int, bytes]:
    """What was brought along, by the model's id. Raises BadTrust `other_model`."""
    ids = {model.name: model.id for model in session.scalars(select(Model))}
    for name in given:
        if name not in ids:
            raise BadTrust("other_model", f"there is no model {name!r}")
    return {ids[name]: content for name, content in given.items()}
