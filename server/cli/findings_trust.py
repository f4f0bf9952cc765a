"""What `weft doctor` finds of the keys that sign metadata, and of what they have signed."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session
from tuf.api.metadata import Root

from server.cli.findings import Finding, of_error
from server.settings import Settings
from server.tables import Model, Rollout, TrustRoot, Version
from server.trust import documents, expiry
from server.trust.keyring import Keyring
from server.trust.keys import OFFLINE, WORDS, keys_in
from server.trust.standing import delegated
from shared.errors import WeftError
from shared.metadata import PACKAGES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def key_files(settings: Settings) -> Iterator[Finding]:
    """Whether the folder of keys is closed to others, and what lies in it that need not."""
    folder, check = settings.keys_folder, "keys folder"
    files = [file for file in keys_in(folder) if file.is_private]
    if not files:
        yield Finding(check, "ok", f"no keys lie in {folder}")
        return
    open_ones = [path for path in (folder, *(f.path for f in files)) if _is_open(path)]
    if open_ones:
        names = " ".join(map(str, open_ones))
        todo = f"chmod go= {names}; if others could read them, rotate them: docs/security.md."
        yield Finding(check, "fail", f"open to others: {names}", todo)
    else:
        yield Finding(check, "ok", str(folder))


def signed(session: Session, settings: Settings) -> Iterator[Finding]:
    """Roots, the keys that they name, ends of what is signed, and versions that wait for it."""
    try:
        newest = select(TrustRoot.content).order_by(TrustRoot.version.desc()).limit(1)
        content = session.scalar(newest)
        if content is None:
            yield Finding("root", "ok", "none yet: the first start makes it")
            return
        root = documents.read(content, Root).signed
        keyring = Keyring(settings.keys_folder)
        yield from _keys_on_the_server(root, settings.keys_folder)
        yield _spare_root_keys(root)
        yield _online_keys(session, root, keyring)
        yield from _ends(session, keyring.holds(root.roles[TARGETS]))
        yield _waiting(session)
    except WeftError as error:
        yield of_error("trust", error)


def _is_open(path: Path) -> bool:
    return bool(path.stat().st_mode & _OTHERS)


def _keys_on_the_server(root: Root, folder: Path) -> Iterator[Finding]:
    """Root and release keys should lie elsewhere: who breaks in could sign anything by them."""
    here = {file.keyid for file in keys_in(folder) if file.is_private}
    found = [WORDS[role] for role in OFFLINE if here & set(root.roles[role].keyids)]
    if found:
        told = f"{' and '.join(found)} keys lie on the server: whoever breaks in signs by them"
        todo = "Move them: `weft keys offline`; docs/security.md says how."
        yield Finding("offline keys", "warn", told, todo)
    else:
        yield Finding("offline keys", "ok", "root and release keys lie elsewhere")


def _spare_root_keys(root: Root) -> Finding:
    role = root.roles[ROOT]
    told = f"{role.threshold} of {len(role.keyids)} root keys sign"
    if len(role.keyids) > role.threshold:
        return Finding("root keys", "ok", told)
    todo = "Add one: `weft keys rotate root --count N`; else one lost key ends all trust."
    return Finding("root keys", "warn", f"{told}: none may be lost", todo)


def _online_keys(session: Session, root: Root, keyring: Keyring) -> Finding:
    """Whether this server could sign what it has to sign every week."""
    roles = [(name, root.roles[name]) for name in (SNAPSHOT, TIMESTAMP)]
    roles += [(PACKAGES, role) for role in delegated(session)]
    for name, role in roles:
        if not keyring.holds(role):
            told = f"{keyring.folder} lacks a key of {WORDS[name]}: {', '.join(role.keyids)}"
            todo = "Put it back from its copy, or rotate it: docs/security.md says how."
            return Finding("online keys", "fail", told, todo)
    return Finding("online keys", "ok", f"all in {keyring.folder}")


def _ends(session: Session, can_release: bool) -> Iterator[Finding]:
    concerns = expiry.concerns(session, can_release)
    for concern in concerns:
        state = "fail" if concern.is_failing else "warn"
        yield Finding(concern.about, state, concern.found, concern.todo)  # type: ignore[arg-type]
    if not concerns:
        yield Finding("signatures", "ok", "nothing expires soon")


def _waiting(session: Session) -> Finding:
    """Rollouts to a version that no device may install."""
    query = (
        select(Model.name, Version.number, func.count())
        .join(Version, Version.model_id == Model.id)
        .join(Rollout, Rollout.version_id == Version.id)
        .where(Rollout.finished_at.is_(None))
        .where(Version.released_at.is_(None) | Version.withdrawn_at.is_not(None))
        .group_by(Model.name, Version.number)
        .order_by(Model.name, Version.number)
    )
    found = [f"{name} {number}" for name, number, _ in session.execute(query)]
    if not found:
        return Finding("releases", "ok", "no rollout waits for one")
    told = f"rollouts lead to versions that are not released: {', '.join(found)}"
    return Finding(
        "releases", "warn", told, "Release them (`weft release`), or abort the rollouts."
    )
