"""The TUF repositories of a server, one a model, under one root (ADR 0025).

`Trust` is what the rooms use. Each method works in the caller's transaction, which must be a write
transaction of its own kind (`db.writing`) where it signs: these follow one another, also across
processes, so what is read here is not changed by others before the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session
from tuf.api.metadata import Root

from server import logs
from server.db import reading
from server.errors import BadTrust, BadVersion
from server.history.events import record
from server.tables import Model, Package, TrustMetadata, TrustRoot, Version, now
from server.trust import bundles, documents, expiry, listing, offline
from server.trust.answers import Answers
from server.trust.edition import Edition, in_use
from server.trust.expiry import Concern, Expiry, Reminder
from server.trust.keyring import Keyring
from server.trust.renewal import renew_all
from shared.metadata import PACKAGES, TARGETS, package_path, version_path


class Trust:
    """Signs, lists, and answers; safe to share between threads."""

    def __init__(self, engine: Engine, keyring: Keyring) -> None:
        self.engine, self.keyring = engine, keyring
        self._answers = Answers()
        self._reminder = Reminder()
        self._root: tuple[str, Root | None] = "", None

    # --- the root

    def root(self, session: Session) -> Root:
        """The root in use. Raises BadTrust `no_root`."""
        root = self._root_or_none(session)
        if root is None:
            raise BadTrust("no_root", "this server has no root yet")
        return root

    def _root_or_none(self, session: Session) -> Root | None:
        newest = select(TrustRoot.content).order_by(TrustRoot.version.desc()).limit(1)
        content = session.scalar(newest)
        if content is None:
            return None
        content_read, root = self._root
        if content_read != content:
            root = documents.read(content, Root).signed
            self._root = content, root
        return root

    def roots(self, session: Session) -> list[bytes]:
        """All roots from version 1 on."""
        query = select(TrustRoot.content).order_by(TrustRoot.version)
        return [content.encode() for content in session.scalars(query)]

    def root_sha256(self, session: Session) -> str:
        """What enrolment tokens pin: the SHA-256 of the first root."""
        return hashlib.sha256(session.get_one(TrustRoot, 1).content.encode()).hexdigest()

    def accept_root(
        self,
        session: Session,
        content: bytes,
        targets: Mapping[str, bytes] | None = None,
        more_follow: bool = False,
    ) -> None:
        """Take the next root, and sign by it; `targets`: those that it asks for, by model.

        A root that revokes the release key takes effect together with new targets of every model:
        this server signs them where it can, else they are brought along. `more_follow`: another
        root is taken in the same transaction, and this one may have expired.
        Raises BadTrust `malformed`, `outdated`, `bad_signature`, `expired`, `key_missing`,
        `targets_missing` and what `accept_targets` raises.
        """
        current = self._root_or_none(session)
        root = offline.check_root(current, content)
        offline.put_root(session, root, content)
        record(session, "root.published", {"version": root.version})
        if more_follow:
            return
        offline.require_fresh(root, now())
        offline.require_online_keys(root, self.keyring)
        given = offline.targets_by_model(session, targets or {})
        published = session.scalars(select(TrustMetadata.model_id).distinct())
        for model_id in sorted({*published, *given}):
            edition = self.edition(session, session.get_one(Model, model_id))
            content_of = given.get(model_id)
            if content_of is not None:
                self._check_targets(session, edition, content_of)
            offline.resign(session, edition, content_of, self.can_release(session))
            listing.note_listed(session, edition.model, edition.targets)

    # --- versions

    def can_release(self, session: Session) -> bool:
        """Whether the release key lies here; else versions are signed elsewhere."""
        return self.keyring.holds(self.root(session).roles[TARGETS])

    @logs.beyond_scope()
    def release(
        self, session: Session, version: Version, keep: int = listing.KEPT_VERSIONS
    ) -> None:
        """List the version, signed by the release key; nothing to do where it is listed.

        Raises BadTrust `release_key_offline`, `key_missing`, `signing_failed`, BadVersion
        `withdrawn`.
        """
        if version.withdrawn_at is not None:
            day = version.withdrawn_at.date()
            raise BadVersion("withdrawn", f"version {version.number} was withdrawn on {day}")
        if version.is_released:
            return
        self._require_release_key(session)
        edition = self.edition(session, version.model)
        listed = listing.versions_to_list(session, version.model, [version], keep)
        edition.sign_targets(map(listing.version_target, listed))
        edition.publish()
        listing.note_listed(session, edition.model, edition.targets)

    @logs.beyond_scope()
    def withdraw(self, session: Session, version: Version) -> bool:
        """Take a version back, for ever: it is not offered, nor installed by new metadata.

        False where the release key lies elsewhere: until it has signed `targets` without the
        version, devices that hold the weights could still switch to them; packages that lead to it
        are refused at once. Raises BadTrust `key_missing`, `signing_failed`.
        """
        if version.withdrawn_at is None:
            version.withdrawn_at = now()
            told = {"number": version.number, "weights_digest": version.weights_digest}
            ids = {"model_id": version.model_id, "version_id": version.id}
            record(session, "version.withdrawn", told, **ids)
        edition = self.edition(session, version.model)
        if edition.targets is None or edition.packages is None:
            return True
        is_listed = version_path(version.number) in edition.targets.signed.targets
        if is_listed and self.can_release(session):
            listed = listing.versions_to_list(session, version.model, ())
            edition.sign_targets(map(listing.version_target, listed))
            is_listed = False
        packages = edition.packages.signed
        edition.sign_packages(listing.packages_to_list(session, version.model, packages, ()))
        edition.publish()
        listing.note_listed(session, edition.model, edition.targets)
        return not is_listed

    @logs.beyond_scope()
    def draft_targets(
        self,
        session: Session,
        model: Model,
        add: Sequence[Version] = (),
        keep: int = listing.KEPT_VERSIONS,
    ) -> bytes:
        """The next targets with `add` listed, not signed: for a release key that lies elsewhere."""
        listed = listing.versions_to_list(session, model, add, keep)
        draft = self.edition(session, model).draft_targets(map(listing.version_target, listed))
        return documents.sign(draft, ())

    @logs.beyond_scope()
    def accept_targets(self, session: Session, model: Model, content: bytes) -> None:
        """Publish targets that were signed elsewhere: what they list is released, and no other.

        Raises BadTrust `malformed`, `other_model`, `outdated`, `bad_signature`, `expired`,
        `unknown_version`, `bad_delegation`, `key_missing`.
        """
        edition = self.edition(session, model)
        self._check_targets(session, edition, content)
        edition.put_targets(content)
        edition.publish()
        listing.note_listed(session, edition.model, edition.targets)

    def _check_targets(self, session: Session, edition: Edition, content: bytes) -> None:
        current = edition.targets.signed if edition.targets else None
        found = offline.check_targets(session, edition.root, edition.model, current, content)
        if found.is_expired(now()):
            raise BadTrust("expired", f"it held until {found.expires:%Y-%m-%d %H:%M}Z")
        offline.check_delegation(found, self.keyring)

    # --- packages

    def is_listed(self, session: Session, packages: Sequence[Package]) -> bool:
        """Whether devices would accept each of these packages by the metadata in use."""
        contents: dict[int, str] = {}
        for package in packages:
            if package.model_id not in contents:
                row = in_use(session, package.model_id).get(PACKAGES)
                contents[package.model_id] = row.content if row else ""
            if f'"{package_path(package.sha256)}"' not in contents[package.model_id]:
                return False
        return True

    @logs.beyond_scope()
    def ensure_listed(self, session: Session, packages: Sequence[Package]) -> None:
        """List the packages; nothing to do where they are listed.

        Raises BadVersion `not_released` where one leads to a version that is none, BadTrust
        `key_missing`, `signing_failed`.
        """
        if self.is_listed(session, packages):
            return
        listing.require_released(packages)
        for model in {package.model_id: package.model for package in packages}.values():
            edition = self.edition(session, model)
            listed = edition.packages.signed if edition.packages else None
            asked = [package for package in packages if package.model_id == model.id]
            edition.sign_packages(listing.packages_to_list(session, model, listed, asked))
            edition.publish()

    # --- what devices ask for

    def answer(self, session: Session, model: Model, held: Mapping[str, int]) -> bytes | None:
        """What a device lacks that holds these versions of the roles, packed; None: nothing."""
        return self._answers.answer(session, model, held)

    @logs.beyond_scope()
    def bundle_metadata(
        self, session: Session, model: Model, packages: Sequence[Package], valid_days: int
    ) -> bytes:
        """All metadata for a device that is reached by a medium, holding for so many days; packed.

        They list these packages only. The server goes on with later versions, so devices that are
        back online take those. Raises BadTrust `ends_sooner`, BadVersion `not_released`.
        """
        return bundles.metadata_for(self, session, model, packages, timedelta(days=valid_days))

    # --- time

    def renew(self, at: datetime | None = None) -> int:
        """Sign anew what is due, write concerns to the log, and return what was renewed.

        The duty of one process, harmless in several. Raises what the last failure raised.
        """
        moment = at or now()
        try:
            return renew_all(self, moment)
        finally:
            with reading(self.engine) as session:
                self._reminder.remind(self.concerns(session, moment), moment)

    def expiries(self, session: Session) -> list[Expiry]:
        """The root, then all metadata in use, by model."""
        return expiry.expiries(session)

    def concerns(self, session: Session, at: datetime | None = None) -> list[Concern]:
        """What somebody should do, for `weft doctor` and the log."""
        return expiry.concerns(session, self.can_release(session), at)

    # --- inside

    def edition(
        self,
        session: Session,
        model: Model,
        at: datetime | None = None,
        valid: timedelta | None = None,
    ) -> Edition:
        """The metadata of the model, to be changed; those of now hold for `valid`, if given."""
        return Edition(session, model, self.root(session), self.keyring, at or now(), valid)

    def _require_release_key(self, session: Session) -> None:
        if not self.can_release(session):
            raise BadTrust("release_key_offline", "the release key does not lie on this server")
