"""What expires when, and what somebody should do about it: for the log, a metric, `weft doctor`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.tables import Model, TrustMetadata, TrustRoot, Version, now
from server.trust.documents import VALID
from server.trust.keys import WORDS
from shared.metadata import ROOT, TARGETS

log = logging.getLogger("weft.trust")

#: Left of its life when a role becomes a concern. The server renews at half life what it can:
#: where less than this is left, that fails; of the other roles somebody has to sign in time.
CONCERN: Final = {role: life * 3 // 10 for role, life in VALID.items()}


@dataclass(frozen=True)
class Expiry:
    """One role's metadata in use; `model` None: the root, which all share."""

    model: str | None
    role: str
    version: int
    expires_at: datetime
    is_restored: bool = False
    """Whether it came out of a backup and was not signed since: later ones may be published."""

    @property
    def name(self) -> str:
        """As operators call it."""
        return f"{WORDS[self.role]} of {self.model}" if self.model else WORDS[self.role]


@dataclass(frozen=True)
class Concern:
    """Something that somebody should do. `is_failing`: devices install nothing until it is done."""

    about: str
    found: str
    todo: str
    is_failing: bool = False


def expiries(session: Session) -> list[Expiry]:
    """The root, then all metadata in use, by model."""
    newest = select(TrustRoot).order_by(TrustRoot.version.desc()).limit(1)
    found = [Expiry(None, ROOT, r.version, r.expires_at) for r in session.scalars(newest)]
    query = (
        select(TrustMetadata, Model.name)
        .join(Model, Model.id == TrustMetadata.model_id)
        .where(TrustMetadata.due_at.is_not(None))
        .order_by(Model.name, TrustMetadata.role)
    )
    for row, name in session.execute(query):
        expiry = Expiry(name, row.role, row.version, row.expires_at, _was_restored(row))
        found.append(expiry)
    return found


def _was_restored(row: TrustMetadata) -> bool:
    """A restore makes due since it was made what else is due at half its life."""
    return row.due_at == row.created_at


def concerns(session: Session, can_release: bool, at: datetime | None = None) -> list[Concern]:
    """What expires soon or has expired, what a restore left old, what is withdrawn by half."""
    moment = at or now()
    found = [c for e in expiries(session) if (c := _concern(e, can_release, moment)) is not None]
    return [*found, *_half_withdrawn(session)]


def _concern(expiry: Expiry, can_release: bool, at: datetime) -> Concern | None:
    left = expiry.expires_at - at
    todo = _todo(expiry, can_release)
    if left <= timedelta(0):
        text = f"expired {_days(-left)} ago: devices install nothing new"
        return Concern(expiry.name, text, todo, is_failing=True)
    if left < CONCERN[expiry.role]:
        return Concern(expiry.name, f"expires in {_days(left)}", todo)
    if expiry.is_restored and expiry.role == TARGETS and not can_release:
        text = f"version {expiry.version} is from a backup; devices refuse it if they hold a later"
        return Concern(expiry.name, text, todo)
    return None


def _todo(expiry: Expiry, can_release: bool) -> str:
    if expiry.role == ROOT:
        return "Sign the next root: `weft keys renew root`; docs/security.md says how."
    if expiry.role == TARGETS and not can_release:
        return "Sign the list of versions anew: `weft keys renew release`."
    return "The server renews it: see its log for why it does not."


def _half_withdrawn(session: Session) -> Iterable[Concern]:
    """Withdrawn versions that the release key, which lies elsewhere, has still to take off."""
    query = (
        select(Version.number, Model.name)
        .join(Model, Model.id == Version.model_id)
        .where(Version.withdrawn_at.is_not(None), Version.released_at.is_not(None))
        .order_by(Model.name, Version.number)
    )
    for number, name in session.execute(query):
        text = "withdrawn, and still listed: devices that hold it may switch to it"
        todo = f"Sign the list without it: `weft versions withdraw {name} {number}`."
        yield Concern(f"version {number} of {name}", text, todo)


def _days(span: timedelta) -> str:
    days = span.days
    return f"{days} days" if days > 1 else f"{span // timedelta(hours=1)} hours"


class Reminder:
    """Writes concerns to the log, each at most once a day."""

    def __init__(self) -> None:
        self._told: dict[str, datetime] = {}

    def remind(self, found: Iterable[Concern], at: datetime) -> None:
        """Log what was not logged for a day."""
        for concern in found:
            told = self._told.get(concern.about)
            if told is None or at - told >= timedelta(days=1):
                self._told[concern.about] = at
                level = logging.ERROR if concern.is_failing else logging.WARNING
                log.log(level, "%s: %s. %s", concern.about, concern.found, concern.todo)
