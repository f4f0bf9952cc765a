"""Carries out one step of a rollout in a write transaction, and tells history.

Every step is a conditional UPDATE of the rollout, on its revision and state as they were seen: of
two evaluators that decided from one snapshot, one finds that it was outrun, and its step is void.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from server import logs
from server.history.events import record, record_each
from server.rollouts import membership
from server.rollouts.admission import admit, admit_again, bump, rows_changed
from server.rollouts.among import among
from server.rollouts.giving_back import give_back
from server.rollouts.overdue import mark_overdue
from server.rollouts.strategies.base import (
    Abort,
    Admit,
    AdmitAgain,
    Finish,
    NextPhase,
    PhaseDone,
    Reason,
    Step,
    Wait,
)
from server.rollouts.view import View
from server.tables import Assignment, Rollout


@dataclass(frozen=True)
class MarkOverdue:
    """The deadlines of some devices have passed."""


@dataclass(frozen=True)
class Reopen:
    """Devices came to a rollout that was finished."""


@dataclass(frozen=True)
class Close:
    """The rollout was aborted: what is open is taken back."""


@dataclass(frozen=True)
class GiveBack:
    """The rollout was aborted: what it took over from older ones is theirs again."""


AnyStep: TypeAlias = Step | MarkOverdue | Reopen | Close | GiveBack
#: Ids of devices that are admitted, of assignments that are overdue or closed.
Chosen: TypeAlias = Sequence[Any]


class Outrun(Exception):
    """Another decision came first; nothing of this one may stay."""


def carry_out(session: Session, view: View, step: AnyStep, chosen: Chosen, at: datetime) -> None:
    """Take the step, for the `chosen` only. Raises Outrun."""
    rollout = view.rollout
    if isinstance(step, Wait):
        _note(session, view, step)
        return
    _advance(session, view, **_changes(step, rollout, at))
    if isinstance(step, Admit):
        mark_due(session, admit(session, rollout, chosen, at), at)
    elif isinstance(step, AdmitAgain):
        admit_again(session, rollout, chosen, at)
    elif isinstance(step, MarkOverdue):
        mark_overdue(session, rollout, chosen, at)
    elif isinstance(step, Close):
        _close(session, chosen, at)
    elif isinstance(step, GiveBack):
        mark_due(session, give_back(session, rollout, list(chosen)), at)
    else:
        _tell(session, view, step)
        if isinstance(step, Abort):
            let_others_take(session, rollout, at)


@logs.beyond_scope()
def let_others_take(session: Session, rollout: Rollout, at: datetime) -> None:
    """A rollout was aborted: devices that waited for it may belong to an older one now."""
    session.flush()
    mark_due(session, membership.may_take(session, rollout.model_id) - {rollout.id}, at)


def mark_due(session: Session, rollouts: set[int], at: datetime) -> None:
    """Have these rollouts looked at soon."""
    if rollouts:
        session.execute(
            update(Rollout)
            .where(Rollout.id.in_(rollouts))
            .values(due_at=at)
            .execution_options(synchronize_session=False)
        )


def count_states(session: Session, rollout: Rollout) -> dict[str, int]:
    """State -> number of assignments in it."""
    query = (
        select(Assignment.state, func.count())
        .where(Assignment.rollout_id == rollout.id)
        .group_by(Assignment.state)
        .order_by(Assignment.state)
    )
    return dict(session.execute(query).all())


def about(rollout: Rollout) -> dict[str, Any]:
    """The columns of an event about a rollout."""
    return {
        "rollout_id": rollout.id,
        "model_id": rollout.model_id,
        "version_id": rollout.version_id,
    }


def _advance(session: Session, view: View, **changes: Any) -> None:
    seen = (Rollout.revision == view.revision) & (Rollout.state == view.rollout.state)
    moved = session.execute(
        update(Rollout)
        .where(Rollout.id == view.rollout.id, seen)
        .values(revision=Rollout.revision + 1, **changes)
        .execution_options(synchronize_session=False)
    )
    if not rows_changed(moved):
        raise Outrun
    view.revision += 1


def _note(session: Session, view: View, step: Wait) -> None:
    """Store the reason and the time to look again; a mark made meanwhile stays."""
    reason = step.reason.as_json() if step.reason is not None else None
    if (view.rollout.reason, view.due_at) == (reason, step.until):
        return
    unmarked = or_(Rollout.due_at.is_(None), Rollout.due_at == view.due_at)
    session.execute(
        update(Rollout)
        .where(Rollout.id == view.rollout.id, Rollout.revision == view.revision, unmarked)
        .values(reason=reason, due_at=step.until)
        .execution_options(synchronize_session=False)
    )


def _changes(step: AnyStep, rollout: Rollout, at: datetime) -> dict[str, Any]:
    """What the step changes in the rollout's row."""
    if isinstance(step, PhaseDone):
        return {"phase_done_at": at}
    if isinstance(step, NextPhase):
        return {"phase": rollout.phase + 1, "phase_done_at": None}
    if isinstance(step, Finish):
        return {"state": "finished", "finished_at": at, "reason": _json(step.reason)}
    if isinstance(step, Abort):
        return {"state": "aborted", "finished_at": at, "reason": _json(step.reason)}
    if isinstance(step, Reopen):
        return {"state": "active", "finished_at": None, "phase_done_at": None, "reason": None}
    return {}


def _json(reason: Reason | None) -> dict[str, Any] | None:
    return None if reason is None else reason.as_json()


def _tell(session: Session, view: View, step: AnyStep) -> None:
    rollout, counts = view.rollout, count_states(session, view.rollout)
    phase = {"phase": rollout.phase}
    if isinstance(step, PhaseDone):
        record(session, "rollout.phase_done", phase | counts, **about(rollout))
    elif isinstance(step, NextPhase):
        record(session, "rollout.phase_started", {"phase": rollout.phase + 1}, **about(rollout))
    elif isinstance(step, Finish):
        record(session, "rollout.finished", counts, **about(rollout))
    elif isinstance(step, Abort):
        told = counts | phase | {"reason": step.reason.as_json()}
        record(session, "rollout.aborted", told, **about(rollout))
    elif isinstance(step, Reopen):
        record(session, "rollout.reopened", {}, **about(rollout))


def _close(session: Session, ids: Chosen, at: datetime) -> None:
    """Take back what is open, and let the devices know."""
    those = among(session, Assignment.id, ids) & Assignment.finished_at.is_(None)
    devices = list(session.scalars(select(Assignment.device_id).where(those)))
    record_each(session, "assignment.aborted", those)
    session.execute(
        update(Assignment)
        .where(those)
        .values(state="aborted", finished_at=at, held=None)
        .execution_options(synchronize_session=False)
    )
    bump(session, devices)
