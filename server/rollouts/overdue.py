"""Deadlines: which devices have been silent for too long, and what becomes of them.

    offered, and no result since                      -> timed_out
    reached, but nothing could be offered all along   -> timed_out, with the reason
    not heard of since the admission                  -> unreached
    heard of, offered nothing by the rollout's own will (window, pause), then silent -> unreached

What waits for the rollout itself is nobody's failure, as long as the device goes on asking. Both
states stay open: see `states.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from server.db import BATCH_ROWS
from server.history.events import ids_of, record
from server.rollouts.offering import OWN_HOLDS
from server.rollouts.states import UPDATING
from server.tables import Assignment, Device, Rollout


def find_overdue(session: Session, rollout: Rollout, at: datetime) -> list[int]:
    """Ids of the assignments whose deadline has passed, at most a batch."""
    limit = at - timedelta(seconds=rollout.deadline_seconds)
    query = (
        select(Assignment.id)
        .where(Assignment.rollout_id == rollout.id, _is_overdue(limit))
        .order_by(Assignment.id)
        .limit(BATCH_ROWS)
    )
    return list(session.scalars(query))


def mark_overdue(session: Session, rollout: Rollout, ids: Sequence[int], at: datetime) -> None:
    """Put them into the state that follows, unless the device has answered meanwhile."""
    limit = at - timedelta(seconds=rollout.deadline_seconds)
    query = select(Assignment).where(Assignment.id.in_(ids), _is_overdue(limit))
    for row in session.scalars(query):
        row.state, row.error = _state_of(row)
        told = {"error": row.error} if row.error else {}
        record(session, f"assignment.{row.state}", told, **ids_of(row, rollout))
    session.flush()


def _is_overdue(limit: datetime) -> ColumnElement[bool]:
    updating = Assignment.state.in_(UPDATING)
    last_seen = (
        select(Device.last_seen_at).where(Device.id == Assignment.device_id).scalar_subquery()
    )
    silent = or_(
        Assignment.reached_at.is_(None),
        Assignment.held.not_in(OWN_HOLDS),
        last_seen <= limit,
    )
    unoffered = and_(updating, Assignment.offered_at.is_(None), Assignment.admitted_at <= limit)
    offered = or_(updating, Assignment.state == "unreached")
    return or_(and_(offered, Assignment.offered_at <= limit), and_(unoffered, silent))


def _state_of(row: Assignment) -> tuple[str, dict[str, str] | None]:
    if row.offered_at is not None:
        return "timed_out", None
    if row.reached_at is None or row.held in OWN_HOLDS:
        return "unreached", None
    text = f"nothing could be offered until the deadline: {row.held}"
    return "timed_out", {"code": "rollout.held_too_long", "message": text}
