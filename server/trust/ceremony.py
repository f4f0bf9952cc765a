"""What a ceremony decides: which document may follow which, and who has still to sign it.

Documents come in and go out; files are `server.trust.desk`'s, words `server.trust.wording`'s.
A successor of a root is signed by enough keys of the root before it and of itself; `targets` by
enough release keys of the newest root.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from securesystemslib.signer import Key, Signer, SSlibKey
from tuf.api.metadata import Delegations, Metadata, Role, Root, TargetFile, Targets

from server.errors import BadCeremony
from server.trust.documents import (
    PACKAGE_PATHS,
    VALID,
    Frame,
    KeyRole,
    delegate_packages,
    draft_targets,
    is_signed,
    next_version,
    read,
    require_signed,
)
from server.trust.keys import WORDS, short_id
from shared.metadata import MODEL_FIELD, PACKAGES, ROOT, TARGETS, version_path
from shared.tensors import schema_digest
from shared.weights import WeightsReader

_VERSION_PATH = re.compile(r"v/[1-9]\d{0,9}")

Document = Metadata[Root] | Metadata[Targets]

#: Beside the signatures of a draft, not signed: the command that made it, by which it goes on.
PURPOSE_FIELD: Final = "weft-purpose"


@dataclass(frozen=True)
class Change:
    """New keys of a role, in place of those named; `threshold` None: as it was."""

    role: str
    add: Sequence[Key] = ()
    remove: Sequence[str] = ()
    threshold: int | None = None


@dataclass(frozen=True)
class Standing:
    """How many of a list of keys have signed, and how many must."""

    what: str
    threshold: int
    signed: Sequence[str]
    unsigned: Sequence[str]

    @property
    def is_met(self) -> bool:
        """Whether enough have signed."""
        return len(self.signed) >= self.threshold


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


def standing(document: Document, root: Root, before: Root | None = None) -> list[Standing]:
    """Who has signed, and who else may; of a root by itself and by the one before it.

    `root`: the newest one, by whose release keys `targets` are signed; of a root itself.
    """
    if isinstance(document.signed, Root):
        judges = [(f"root {r.version}", r, ROOT) for r in (before, document.signed) if r]
    else:
        judges = [(f"release keys of root {root.version}", root, TARGETS)]
    found = []
    for what, judge, role in judges:
        told = judge.get_verification_result(role, document.signed_bytes, document.signatures)
        found.append(Standing(what, told.threshold, list(told.signed), list(told.unsigned)))
    return found


def is_complete(document: Document, root: Root, before: Root | None = None) -> bool:
    """Whether enough have signed."""
    return all(part.is_met for part in standing(document, root, before))


def sign_with(document: Document, signer: Signer, root: Root, before: Root | None = None) -> bool:
    """Add a signature; False where it has been there already. Raises BadCeremony `wrong_key`."""
    keyid = signer.public_key.keyid
    parts = standing(document, root, before)
    if keyid in {signed for part in parts for signed in part.signed}:
        return False
    waited_for = {unsigned for part in parts for unsigned in part.unsigned}
    if keyid not in waited_for:
        told = ", ".join(sorted(waited_for)) or "nobody"
        raise BadCeremony("wrong_key", f"{keyid} signs nothing here; waited for: {told}")
    document.sign(signer, append=True)
    return True


def roots_in_line(
    contents: Iterable[bytes], trusted: Metadata[Root] | None
) -> list[Metadata[Root]]:
    """The roots after `trusted`, each verified by the one before it, as a client does.

    Without one the first vouches for itself. Raises BadTrust `bad_signature`, `malformed` and
    BadCeremony `not_successor`.
    """
    line: list[Metadata[Root]] = []
    last = trusted
    for content in contents:
        root = read(content, Root)
        if last is not None and root.signed.version <= last.signed.version:
            continue
        wanted = last.signed.version + 1 if last else 1
        if root.signed.version != wanted:
            told = f"root {root.signed.version}, where root {wanted} is due"
            raise BadCeremony("not_successor", told)
        for judge in (last.signed if last else root.signed, root.signed):
            require_signed(judge, ROOT, root)
        line.append(root)
        last = root
    return line


def roles_of(keyid: str, root: Root, packages: Delegations | None = None) -> list[str]:
    """The roles that a key signs for."""
    found = [name for name, role in root.roles.items() if keyid in role.keyids]
    delegated = (packages.roles or {}) if packages else {}
    return found + [name for name, role in delegated.items() if keyid in role.keyids]


def purpose_of(draft: Document) -> str:
    """The command that made a draft, such as `rotate root`."""
    return str(draft.unrecognized_fields.get(PURPOSE_FIELD, ""))


def finished(draft: Document) -> bytes:
    """A draft as it is published."""
    plain = deepcopy(draft)
    plain.unrecognized_fields.pop(PURPOSE_FIELD, None)
    return plain.to_bytes()


def is_release(root: Root, document: Metadata[Targets]) -> bool:
    """Whether enough release keys of the root have signed."""
    return is_signed(root, TARGETS, document)


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
