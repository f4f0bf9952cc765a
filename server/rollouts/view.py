"""What a decision is taken from: a rollout, its devices in numbers, and when a deadline passes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, and_, case, func, not_, select
from sqlalchemy.orm import Session

from server.rollouts import membership
from server.rollouts.box import boxed
from server.rollouts.states import UPDATING
from server.rollouts.strategies.base import Phase, Plan, Rule, Snapshot
from server.tables import Assignment, Rollout
from shared.errors import UserError

#: How soon a device that is silent although nothing was offered to it is looked at again.
RECHECK_SECONDS = 300


@dataclass
class View:
    """A rollout as it was seen; `revision` moves on with the steps that are taken from here."""

    rollout: Rollout
    revision: int
    due_at: datetime | None
    snapshot: Snapshot
    next_deadline: datetime | None
    bad_filter: UserError | None = None
    """Why nobody can be said to match: a group that the filter names is gone, for example."""


def look(session: Session, rollout: Rollout, at: datetime) -> View:
    """The rollout at this moment."""
    counts: dict[str, int] = {}
    held, offers, silences = 0, list[datetime](), list[datetime]()
    for state, count, held_here, offered, silent in session.execute(_by_state(rollout)):
        counts[state] = count
        if state in UPDATING:
            held += held_here
            silences += [silent] if silent else []
        if offered and state in UPDATING | {"unreached"}:
            offers.append(offered)
    (wait, block, box, closed), bad_filter = (0, 0, 0, False), None
    try:
        wait, block, box, closed = _outside(session, rollout)
    except UserError as error:
        bad_filter = error
    snapshot = Snapshot(
        waiting=wait,
        blocked=block,
        boxed=box,
        closed=closed,
        held=held,
        again=counts.get("waiting", 0),
        updating=sum(n for state, n in counts.items() if state in UPDATING),
        unreached=counts.get("unreached", 0),
        committed=counts.get("committed", 0),
        failed=counts.get("failed", 0) + counts.get("rolled_back", 0),
        timed_out=counts.get("timed_out", 0),
        phase=rollout.phase,
        phase_done_at=rollout.phase_done_at,
    )
    deadline = _next_deadline(rollout, at, offers, silences)
    return View(rollout, rollout.revision, rollout.due_at, snapshot, deadline, bad_filter)


def plan_of(rollout: Rollout) -> Plan:
    """What the operator asked for, as strategies take it."""
    return Plan(
        phases=tuple(Phase(p["percent"], p["soak_seconds"]) for p in rollout.phases)
        or (Phase(100),),
        max_open=rollout.max_open,
        success_percent=rollout.success_percent,
        abort_rules=tuple(Rule(**rule) for rule in rollout.abort_rules),
    )


def _by_state(rollout: Rollout) -> Select[str, int, int, datetime | None, Any]:
    """State, devices, of these held, the first offer, the first admission without an offer."""
    unoffered = Assignment.offered_at.is_(None)
    is_held = and_(unoffered, Assignment.held.is_not(None))
    return (
        select(
            Assignment.state,
            func.count(),
            func.count(case((is_held, 1))),
            func.min(Assignment.offered_at),
            func.min(case((unoffered, Assignment.admitted_at))),
        )
        .where(Assignment.rollout_id == rollout.id)
        .group_by(Assignment.state)
    )


def _outside(session: Session, rollout: Rollout) -> tuple[int, int, int, bool]:
    """Devices that wait, are blocked, are boxed, and whether nobody can come any more."""
    query = membership.waiting(session, rollout)
    closed = query is None or rollout.rolls_back_id is not None
    if query is None or rollout.state in ("ready", "aborted"):
        return 0, 0, 0, closed
    is_boxed = boxed(session, rollout)
    is_blocked = and_(membership.blocked(rollout.model_id), not_(is_boxed))
    counted = query.with_only_columns(
        func.count(), func.count(case((is_blocked, 1))), func.count(case((is_boxed, 1)))
    )
    everyone, block, box = session.execute(counted).one()
    return everyone - block - box, block, box, closed


def _next_deadline(
    rollout: Rollout, at: datetime, offers: list[datetime], silences: list[datetime]
) -> datetime | None:
    limit = timedelta(seconds=rollout.deadline_seconds)
    moments = [offer + limit for offer in offers]
    recheck = at + min(limit, timedelta(seconds=RECHECK_SECONDS))
    moments += [s + limit if s + limit > at else recheck for s in silences]
    return min(moments, default=None)
