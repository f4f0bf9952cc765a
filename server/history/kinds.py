"""The kinds of events that there are: what they are about, and what happened to it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from server.errors import BadRequest
from server.tables import Event

_WHAT: Final = {
    "assignment": "aborted committed deferred downloaded downloading failed held idle late_report "
    "offered reconstituting reopened rolled_back staged superseded swapping timed_out unreached "
    "verifying",
    "dataset": "created",
    "device": "accepted attributes_changed changed cloned decommissioned enrolled preauthorised "
    "preauthorisation_withdrawn reenrolled reported tags_changed token_renewed",
    "group": "changed created deleted",
    "history": "expired",
    "installation": "restored",
    "access": "key_created key_revoked",
    "model": "created",
    "package": "published removed",
    "refinement": "cancelled failed interrupted queued started succeeded",
    "rollout": "aborted created finished paused phase_done phase_started reopened resumed retried "
    "started",
    "token": "created revoked",
    "root": "published",
    "version": "brought_back encoded refined released removed unlisted uploaded withdrawn",
    "webhook": "changed created deleted given_up tested",
}

#: All that this version of Weft writes.
KINDS: Final = tuple(f"{of}.{what}" for of, all_ in _WHAT.items() for what in all_.split())


def of_kind(session: Session, kind: str) -> ColumnElement[bool]:
    """The condition on events of a kind, or of all kinds of which it is the first part.

    Raises BadRequest `invalid` for one that nobody knows, and that an earlier version has not left.
    """
    wanted = (Event.kind == kind) | Event.kind.startswith(f"{kind}.", autoescape=True)
    is_known = kind in KINDS or kind in _WHAT
    if not is_known and session.scalar(select(Event.id).where(wanted).limit(1)) is None:
        text = f"query.kind: {kind[:60]!r} is none of {', '.join(_WHAT)}, nor of {', '.join(KINDS)}"
        raise BadRequest("invalid", text)
    return wanted
