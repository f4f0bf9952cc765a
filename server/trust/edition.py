"""What is published of one model, and its next publication, in the caller's transaction.

Metadata refer to each other by version (timestamp -> snapshot -> targets, packages), so whatever
changes, all that names it is signed anew, and all of it is stored by one transaction: devices get
the old metadata or the new ones, never some of both.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session
from tuf.api.metadata import (
    Delegations,
    Metadata,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from server.errors import BadTrust
from server.tables import Model, TrustMetadata
from server.trust import documents
from server.trust.documents import Frame
from server.trust.keyring import Keyring
from shared.metadata import PACKAGES, SNAPSHOT, TARGETS, TIMESTAMP

#: Versions of a role that stay as dictionaries for answers, the one in use among them.
KEPT: Final = 100

_Named = TypeVar("_Named", Snapshot, Timestamp)

Rows = dict[str, TrustMetadata]


def in_use(session: Session, model_id: int) -> Rows:
    """The metadata of a model that are in use, by role; empty where nothing was published yet."""
    newest = (
        select(TrustMetadata.role, func.max(TrustMetadata.version).label("version"))
        .where(TrustMetadata.model_id == model_id)
        .group_by(TrustMetadata.role)
        .subquery()
    )
    query = select(TrustMetadata).join(
        newest,
        (TrustMetadata.role == newest.c.role) & (TrustMetadata.version == newest.c.version),
    )
    found = session.scalars(query.where(TrustMetadata.model_id == model_id))
    return {row.role: row for row in found}


def _last_signed(session: Session) -> Metadata[Targets] | None:
    """The list of versions that was signed last, of whichever model."""
    lists = select(TrustMetadata).where(TrustMetadata.role == TARGETS)
    in_use = lists.where(TrustMetadata.due_at.is_not(None))
    order = (TrustMetadata.version.desc(), TrustMetadata.model_id.desc())
    row = session.scalars(in_use.order_by(*order).limit(1)).first()
    return documents.read(row.content, Targets) if row else None


class Edition:
    """The metadata of a model: those in use, and what becomes of them until `publish`."""

    def __init__(
        self,
        session: Session,
        model: Model,
        root: Root,
        keyring: Keyring,
        at: datetime,
        valid: timedelta | None = None,
    ) -> None:
        self.model, self.root = model, root
        self._session, self._keyring = session, keyring
        self._frame = Frame(model.name, at, valid)
        self.rows = in_use(session, model.id)

    @property
    def targets(self) -> Metadata[Targets] | None:
        """The list of versions in use; None: there is none yet."""
        return self._read(TARGETS)

    @property
    def packages(self) -> Metadata[Targets] | None:
        """The list of packages in use; None: there is none yet."""
        return self._read(PACKAGES)

    def draft_targets(self, listed: Iterable[TargetFile]) -> Targets:
        """The next list of versions, unsigned. Raises BadTrust `key_missing`."""
        version = self._next(TARGETS)
        return documents.draft_targets(self._frame, version, listed, self._delegations())

    def sign_targets(self, listed: Iterable[TargetFile]) -> None:
        """Sign the next list of versions with the release key. Raises BadTrust `key_missing`."""
        draft = self.draft_targets(listed)
        signers = self._keyring.signers(TARGETS, self.root.roles[TARGETS])
        self.put_targets(documents.sign(draft, signers))

    def put_targets(self, content: bytes) -> None:
        """Take a list of versions that is signed and checked already."""
        signed = documents.read(content, Targets).signed
        self._put(TARGETS, signed.version, content, signed.expires)

    def sign_packages(self, listed: Iterable[TargetFile]) -> None:
        """Sign the next list of packages. Raises BadTrust `key_missing`."""
        draft = documents.draft_packages(self._frame, self._next(PACKAGES), listed)
        content = documents.sign(draft, self._keyring.signers(PACKAGES, self._packages_role()))
        self._put(PACKAGES, draft.version, content, draft.expires)

    def sign_packages_again(self) -> None:
        """List the same packages. Raises BadTrust `key_missing`."""
        packages = self.packages
        self.sign_packages(packages.signed.targets.values() if packages else ())

    def publish(self) -> None:
        """Sign what names the rest; where nothing has changed, it is signed anew all the same."""
        packages = self.packages
        if packages is None or not self._holds(PACKAGES, packages):
            self.sign_packages_again()
        versions = (self.rows[TARGETS].version, self.rows[PACKAGES].version)
        snapshot = documents.draft_snapshot(self._frame, self._next(SNAPSHOT), *versions)
        self._sign(SNAPSHOT, snapshot)
        self.stamp()

    def stamp(self) -> None:
        """Sign the next timestamp alone."""
        version = self._next(TIMESTAMP)
        snapshot = self.rows[SNAPSHOT].version
        self._sign(TIMESTAMP, documents.draft_timestamp(self._frame, version, snapshot))

    def is_sound(self, role: str) -> bool:
        """Whether what is in use of a role is signed by its keys of today."""
        if role == PACKAGES:
            packages = self.packages
            return packages is not None and self._holds(PACKAGES, packages)
        kind: Any = {TARGETS: Targets, SNAPSHOT: Snapshot, TIMESTAMP: Timestamp}[role]
        return documents.is_signed(self.root, role, documents.read(self.rows[role].content, kind))

    def _holds(self, role: str, metadata: Metadata[Targets]) -> bool:
        targets = self.targets
        return targets is not None and documents.is_signed(targets.signed, role, metadata)

    def _sign(self, role: str, draft: _Named) -> None:
        content = documents.sign(draft, self._keyring.signers(role, self.root.roles[role]))
        self._put(role, draft.version, content, draft.expires)

    def _read(self, role: str) -> Metadata[Targets] | None:
        row = self.rows.get(role)
        return documents.read(row.content, Targets) if row else None

    def _next(self, role: str) -> int:
        row = self.rows.get(role)
        return documents.next_version(row.version if row else None, self._frame.at)

    def _packages_role(self) -> Role:
        targets = self.targets
        if targets is None:
            raise BadTrust("unknown_version", f"no version of {self.model.name} is released yet")
        return targets.signed.get_delegated_role(PACKAGES)

    def _delegations(self) -> Delegations:
        """As they are, else as those of another model, if this server can sign by them.

        Keys that lie in the folder are the last resort: one that was revoked may be among them.
        """
        for targets in (self.targets, _last_signed(self._session)):
            known = targets.signed.delegations if targets else None
            role = targets.signed.get_delegated_role(PACKAGES) if targets and known else None
            if known is not None and role is not None and self._keyring.holds(role):
                return known
        return documents.delegate_packages(self._keyring.own(PACKAGES))

    def _put(self, role: str, version: int, content: bytes, end: datetime) -> None:
        at, previous = self._frame.at, self.rows.get(role)
        if previous is not None:
            previous.due_at = None
        row = TrustMetadata(
            model_id=self.model.id,
            role=role,
            version=version,
            content=content.decode(),
            expires_at=end,
            due_at=at + (end - at) / 2,
            created_at=at,
        )
        self._session.add(row)
        self.rows[role] = row
        self._prune(role)

    def _prune(self, role: str) -> None:
        those = (TrustMetadata.model_id == self.model.id) & (TrustMetadata.role == role)
        oldest = (
            select(TrustMetadata.version)
            .where(those)
            .order_by(TrustMetadata.version.desc())
            .offset(KEPT - 1)
            .limit(1)
        )
        self._session.flush()
        last = self._session.scalar(oldest)
        if last is not None:
            gone = delete(TrustMetadata).where(those, TrustMetadata.version < last)
            self._session.execute(gone.execution_options(synchronize_session=False))
