"""Which document may follow which: the next root, the next `targets`, and what nobody should sign.

Unsigned documents come out; what is there already is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime

from securesystemslib.signer import Key, SSlibKey
from tuf.api.metadata import Metadata, Role, Root, TargetFile, Targets

from server.errors import BadCeremony
from server.trust.documents import (
    PACKAGE_PATHS,
    VALID,
    Frame,
    KeyRole,
    delegate_packages,
    draft_targets,
    next_version,
)
from server.trust.keys import WORDS, short_id
from shared.metadata import MODEL_FIELD, PACKAGES, ROOT, version_path
from shared.tensors import schema_digest
from shared.weights import WeightsReader

_VERSION_PATH = re.compile(r"v/[1-9]\d{0,9}")


@dataclass(frozen=True)
class Change:
    """New keys of a role, in place of those named; `threshold` None: as it was."""

    role: str
    add: Sequence[Key] = ()
    remove: Sequence[str] = ()
    threshold: int | None = None


def root_after(before: Root, changes: Iterable[Change], at: datetime) -> Metadata[Root]:
    """The next root, unsigned; the one before is not touched.

    Raises BadCeremony `too_few_keys`, `unknown_key`, `same_key`.
    """
    after = deepcopy(before)
    after.version, after.expires = before.version + 1, at + VALID[ROOT]
    for change in changes:
        role = after.roles[change.role]
        role.keyids = _changed(role, change)
        role.threshold = change.threshold or role.threshold
        _require_enough(WORDS[change.role], role)
        for key in change.add:
            if after.keys.setdefault(key.keyid, key) != key:
                raise BadCeremony("same_key", f"another key has the id {key.keyid}")
    used = {keyid for role in after.roles.values() for keyid in role.keyids}
    after.keys = {keyid: key for keyid, key in after.keys.items() if keyid in used}
    return Metadata(after)


def targets_after(
    before: Targets | None,
    frame: Frame,
    listed: Iterable[TargetFile] = (),
    dropped: Iterable[str] = (),
    packages: Sequence[Key] = (),
) -> Metadata[Targets]:
    """The next `targets` of a model, unsigned; `packages`: other keys of packages than before."""
    files = dict(before.targets) if before is not None else {}
    files |= {file.path: file for file in listed}
    for path in dropped:
        files.pop(path, None)
    delegations = before.delegations if before is not None else None
    if packages or delegations is None:
        delegations = delegate_packages(KeyRole(packages))
    version = next_version(before.version if before else None, frame.at)
    return Metadata(draft_targets(frame, version, files.values(), delegations))


def weights_target(number: int, weights: WeightsReader) -> TargetFile:
    """What a release says of a version: the stream that its weights digest is over, and the schema.

    Reads the whole file.
    """
    length = sum(len(spec.header()) + spec.nbytes for spec in weights.schema.values())
    custom = {"custom": {"schema": schema_digest(weights.schema).hex()}}
    return TargetFile(length, {"sha256": weights.digest().hex()}, version_path(number), custom)


def check_root(before: Root | None, after: Root, at: datetime) -> None:
    """Raise BadCeremony for what nobody should sign.

    `not_successor`, `expired`, `too_few_keys`, `unknown_key`, `same_key`.
    """
    wanted = before.version + 1 if before is not None else 1
    if after.version != wanted:
        raise BadCeremony("not_successor", f"root {after.version}, where root {wanted} is due")
    if not after.consistent_snapshot:
        raise BadCeremony("not_successor", "root without consistent snapshots")
    _require_fresh(f"root {after.version}", after.expires, at)
    for name, role in after.roles.items():
        _require_enough(WORDS[name], role)
        unknown = [keyid for keyid in role.keyids if keyid not in after.keys]
        if unknown:
            raise BadCeremony("unknown_key", f"root {after.version} has no key {unknown[0]!r}")
    _check_keys(before.keys if before else {}, after.keys)


def check_targets(before: Targets | None, after: Targets, model: str, at: datetime) -> None:
    """Raise BadCeremony for what nobody should sign.

    `other_model`, `not_successor`, `expired`, `same_key`.
    """
    named = after.unrecognized_fields.get(MODEL_FIELD)
    if named != model:
        raise BadCeremony("other_model", f"the document is of {named!r}, not of {model!r}")
    if before is not None and after.version <= before.version:
        told = f"targets {after.version} of {model}, where {before.version} was published"
        raise BadCeremony("not_successor", told)
    _require_fresh(f"targets {after.version} of {model}", after.expires, at)
    strange = [path for path in after.targets if not _VERSION_PATH.fullmatch(path)]
    if strange:
        raise BadCeremony("not_successor", f"{strange[0]!r} is no version's path")
    role = (after.delegations.roles or {}).get(PACKAGES) if after.delegations else None
    if after.delegations is None or role is None or len(after.delegations.roles or ()) != 1:
        raise BadCeremony("not_successor", f"targets of {model} must hand on packages alone")
    if role.paths != PACKAGE_PATHS:
        raise BadCeremony("not_successor", f"packages may sign {PACKAGE_PATHS} alone")
    known = before.delegations.keys if before and before.delegations else {}
    _check_keys(known, after.delegations.keys)


def _changed(role: Role, change: Change) -> list[str]:
    unknown = [keyid for keyid in change.remove if keyid not in role.keyids]
    if unknown:
        told = f"{unknown[0]} is no key of {WORDS[change.role]}: {', '.join(role.keyids)}"
        raise BadCeremony("unknown_key", told)
    kept = [keyid for keyid in role.keyids if keyid not in change.remove]
    return kept + [key.keyid for key in change.add if key.keyid not in kept]


def _require_enough(what: str, role: Role) -> None:
    if len(set(role.keyids)) < role.threshold:
        told = f"{what}: {len(role.keyids)} keys, of which {role.threshold} must sign"
        raise BadCeremony("too_few_keys", told)


def _check_keys(before: Mapping[str, Key], after: Mapping[str, Key]) -> None:
    """Raise BadCeremony `same_key` where an id does not mean the key that holders know by it."""
    for keyid, key in after.items():
        if not isinstance(key, SSlibKey) or short_id(key) != keyid:
            raise BadCeremony("same_key", f"{keyid!r} is not the id of the key under it")
        if before.get(keyid, key) != key:
            raise BadCeremony("same_key", f"another key stands under the id {keyid} than before")


def _require_fresh(what: str, expires: datetime, at: datetime) -> None:
    if expires <= at:
        raise BadCeremony("expired", f"{what} expired on {expires:%Y-%m-%d}")
