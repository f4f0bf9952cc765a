"""Who signs what on this server, and what is signed of each model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session
from tuf.api.metadata import Role, Root, Targets

from server.tables import Model, TrustMetadata
from server.trust import documents
from server.trust.edition import in_use
from server.trust.keys import WORDS, keys_in
from server.trust.repository import Trust
from shared.metadata import PACKAGES, TARGETS


@dataclass(frozen=True)
class SigningKey:
    """A key that may sign for a role; `role` is the operator's word."""

    role: str
    keyid: str
    threshold: int
    on_server: bool


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


def delegated(session: Session) -> list[Role]:
    """The roles by which the models' targets hand packages on."""
    published = select(Model).where(Model.id.in_(select(TrustMetadata.model_id)))
    contents = [targets_of(session, m) for m in session.scalars(published.order_by(Model.name))]
    read = [documents.read(content, Targets).signed for content in contents if content is not None]
    return [targets.get_delegated_role(PACKAGES) for targets in read]


def _roles(session: Session, root: Root) -> Iterator[tuple[str, Role]]:
    yield from ((name, root.roles[name]) for name in WORDS if name in root.roles)
    yield from ((PACKAGES, role) for role in delegated(session))
