"""Metadata for a medium: they hold for long, and list what lies there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from server.errors import BadTrust
from server.tables import Model, Package, now
from server.trust import answers, listing
from server.trust.edition import Edition
from server.trust.offline import sign_targets_again

if TYPE_CHECKING:
    from server.trust.repository import Trust


def metadata_for(
    trust: Trust, session: Session, model: Model, packages: Sequence[Package], valid: timedelta
) -> bytes:
    """See `Trust.bundle_metadata`."""
    listing.require_released(packages)
    at = now().replace(microsecond=0)
    edition = trust.edition(session, model, at, valid)
    listed = edition.packages.signed.targets.values() if edition.packages else ()
    _require_lasting(session, edition, at + valid, trust.can_release(session))
    edition.sign_packages(map(listing.package_target, packages))
    edition.publish()
    bundle = answers.whole(session, model)
    online = trust.edition(session, model, at)
    online.sign_packages(listed)
    online.publish()
    return bundle


def _require_lasting(session: Session, edition: Edition, end: datetime, can_release: bool) -> None:
    """Raise BadTrust `ends_sooner` where root or targets do not hold until then."""
    if edition.root.expires < end:
        raise BadTrust("ends_sooner", f"the root holds until {edition.root.expires:%Y-%m-%d}")
    targets = edition.targets
    if targets is not None and targets.signed.expires < end and can_release:
        sign_targets_again(session, edition)
        targets = edition.targets
    if targets is not None and targets.signed.expires < end:
        told = f"the list of versions holds until {targets.signed.expires:%Y-%m-%d}"
        raise BadTrust("ends_sooner", told)
