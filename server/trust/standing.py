"""Who signs what on this server, and until when what is signed holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session
from tuf.api.metadata import Role, Root, Targets

from server.tables import Model, TrustMetadata, TrustRoot
from server.trust import documents
from server.trust.edition import in_use
from server.trust.keys import WORDS, keys_in
from server.trust.repository import Trust
from shared.metadata import PACKAGES, ROOT, TARGETS

#: Of the time that a document holds: when so little is left, somebody should act.
SOON = 0.3


@dataclass(frozen=True)
class Expiry:
    """A document in use. `model` None: the root."""

    model: str | None
    role: str
    version: int
    signed_at: datetime
    expires_at: datetime

    def is_over(self, at: datetime) -> bool:
        """Whether it holds no longer."""
        return self.expires_at <= at

    def is_soon_over(self, at: datetime) -> bool:
        """Whether less than `SOON` of its time is left."""
        return self.expires_at - at < (self.expires_at - self.signed_at) * SOON


@dataclass(frozen=True)
class SigningKey:
    """A key that may sign for a role; `role` is the operator's word."""

    role: str
    keyid: str
    threshold: int
    on_server: bool


def expiries(session: Session) -> list[Expiry]:
    """All documents in use, the root first."""
    root = session.scalars(select(TrustRoot).order_by(TrustRoot.version.desc()).limit(1)).first()
    found = []
    if root is not None:
        found.append(Expiry(None, ROOT, root.version, root.created_at, root.expires_at))
    newest = func.max(TrustMetadata.version)
    groups = select(TrustMetadata.model_id, TrustMetadata.role, newest.label("version"))
    in_use = groups.group_by(TrustMetadata.model_id, TrustMetadata.role).subquery()
    query = (
        select(Model.name, TrustMetadata)
        .join(TrustMetadata, TrustMetadata.model_id == Model.id)
        .join(
            in_use,
            (in_use.c.model_id == TrustMetadata.model_id)
            & (in_use.c.role == TrustMetadata.role)
            & (in_use.c.version == TrustMetadata.version),
        )
        .order_by(Model.name, TrustMetadata.role)
    )
    for name, row in session.execute(query):
        found.append(Expiry(name, row.role, row.version, row.created_at, row.expires_at))
    return found


def signing_keys(session: Session, trust: Trust) -> list[SigningKey]:
    """The keys of each role, those of packages as the models' targets have them."""
    here = {file.keyid for file in keys_in(trust.keyring.folder) if file.is_private}
    found: dict[tuple[str, str], SigningKey] = {}
    for name, role in _roles(session, trust.root(session)):
        for keyid in role.keyids:
            key = SigningKey(WORDS[name], keyid, role.threshold, keyid in here)
            found.setdefault((name, keyid), key)
    return list(found.values())


def targets_of(session: Session, model: Model) -> bytes | None:
    """The signed list of the model's released versions; None: nothing was released yet."""
    row = in_use(session, model.id).get(TARGETS)
    return row.content.encode() if row else None


def _roles(session: Session, root: Root) -> Iterator[tuple[str, Role]]:
    yield from ((name, root.roles[name]) for name in WORDS if name in root.roles)
    published = select(Model).where(Model.id.in_(select(TrustMetadata.model_id)))
    for model in session.scalars(published.order_by(Model.name)):
        content = targets_of(session, model)
        if content is not None:
            targets = documents.read(content, Targets).signed
            yield PACKAGES, targets.get_delegated_role(PACKAGES)
