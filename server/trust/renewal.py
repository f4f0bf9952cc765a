"""Signs anew what this server has the keys of, long before it expires; the duty `trust`.

What is due is what lies past half its life, and all that a restore has brought back. Each model is
renewed in a transaction of its own, in which it is looked at again: several processes may do this
at once, and what one has renewed is not due for the next.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import select
from sqlalchemy.orm import Session
from tuf.api.metadata import Root

from server.db import reading, writing
from server.tables import Model, TrustMetadata, TrustRoot
from server.trust import documents
from server.trust.embedded import keep_root, roots_in, try_to_keep
from server.trust.offline import sign_targets_again
from shared.errors import WeftError
from shared.metadata import PACKAGES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP

if TYPE_CHECKING:
    from server.trust.repository import Trust

log = logging.getLogger("weft.trust")

ONLINE: Final = (TIMESTAMP, SNAPSHOT, PACKAGES)


def renew_all(trust: Trust, at: datetime) -> int:
    """Renew what is due, and return how many models that were (the root counts as one).

    A model that fails is logged, and does not keep the others waiting; the last error is raised at
    the end, so that the duty counts it.
    """
    ended = [_try_model(trust, model_id, at) for model_id in _due(trust, at)]
    with writing(trust.engine) as session:
        ended.append(renew_root(trust, session, at))
    keep_roots(trust)
    failed = [error for error in ended if isinstance(error, WeftError)]
    if failed:
        raise failed[-1]
    return sum(map(bool, ended))


def _try_model(trust: Trust, model_id: int, at: datetime) -> bool | WeftError:
    try:
        with writing(trust.engine) as session:
            return renew_model(trust, session, model_id, at)
    except WeftError as error:
        log.error("metadata of model %d are not renewed: %s", model_id, error)
        return error


def _due(trust: Trust, at: datetime) -> list[int]:
    with reading(trust.engine) as session:
        those = TrustMetadata.role.in_(_renewable(trust, session))
        query = select(TrustMetadata.model_id).where(TrustMetadata.due_at <= at, those)
        return list(session.scalars(query.distinct().order_by(TrustMetadata.model_id)))


def _renewable(trust: Trust, session: Session) -> tuple[str, ...]:
    return (*ONLINE, TARGETS) if trust.can_release(session) else ONLINE


def renew_model(trust: Trust, session: Session, model_id: int, at: datetime) -> bool:
    """Renew what is due of one model; False where nothing is. Raises BadTrust `key_missing`."""
    edition = trust.edition(session, session.get_one(Model, model_id), at)
    renewable = _renewable(trust, session)
    rows = [edition.rows[role] for role in renewable if role in edition.rows]
    due = {row.role for row in rows if row.due_at is not None and row.due_at <= at}
    if not due:
        return False
    if TARGETS in due:
        sign_targets_again(session, edition)
    if PACKAGES in due:
        edition.sign_packages_again()
    if due == {TIMESTAMP}:
        edition.stamp()
    else:
        edition.publish()
    return True


def keep_roots(trust: Trust) -> None:
    """Keep all roots beside the keys, where that is allowed: a backup may be older than one."""
    folder = trust.keyring.folder
    there = dict(roots_in(folder))
    with reading(trust.engine) as session:
        for version, content in enumerate(trust.roots(session), start=1):
            if version not in there:
                try_to_keep(folder, version, content)


def renew_root(trust: Trust, session: Session, at: datetime) -> bool:
    """Take a root that lies beside the keys, or sign the next one where the root's key is here.

    It is written to the keys folder first, so that it is never lost: a crash in between, or a
    database that is restored from an older backup, finds it there.
    """
    row = session.scalars(select(TrustRoot).order_by(TrustRoot.version.desc()).limit(1)).one()
    waiting = dict(roots_in(trust.keyring.folder)).get(row.version + 1)
    if waiting is not None:
        trust.accept_root(session, waiting)
        return True
    root = trust.root(session)
    is_due = row.created_at + (row.expires_at - row.created_at) / 2 <= at
    if not is_due or not trust.keyring.holds(root.roles[ROOT]):
        return False
    after = Root(
        version=root.version + 1,
        expires=at + documents.VALID[ROOT],
        keys=root.keys,
        roles=root.roles,
    )
    content = documents.sign(after, trust.keyring.signers(ROOT, root.roles[ROOT]))
    keep_root(trust.keyring.folder, after.version, content)
    trust.accept_root(session, content)
    return True
