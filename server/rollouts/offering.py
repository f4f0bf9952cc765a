"""Whether a rollout lets a device be offered its version now."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.rollouts import windows
from server.rollouts.states import OVERDUE
from server.tables import Assignment, Rollout, Version

#: Reasons that lie in the rollout, not in the device: its deadline does not run meanwhile.
OWN_HOLDS = frozenset(
    {
        "rollout_paused",
        "rollout_aborted",
        "outside_window",
        "waiting_for_retry",
        "not_released",
    }
)


def hold_reason(
    rollout: Rollout,
    assignment: Assignment,
    current_number: int | None,
    target: Version,
    at: datetime,
) -> str | None:
    """Why nothing may be offered at this time; None: it may.

    `current_number`: of the version in use; None: weights that nobody knows. What was offered
    before goes on through a pause and the end of a window, but not once its version is not
    released any more: the device would refuse it.
    """
    if rollout.state == "aborted":
        return "rollout_aborted"
    if assignment.state == "waiting":
        return "waiting_for_retry"
    if not target.is_released:
        return "not_released"
    if current_number is not None and target.number < current_number and not rollout.rollback:
        return "needs_rollback_mark"
    if assignment.offered_at is not None:
        return None
    if rollout.state == "paused":
        return "rollout_paused"
    return None if windows.is_open(rollout.window, at) else "outside_window"


def number_in_use(session: Session, model_id: int, digest: str | None) -> int | None:
    """The number of the version whose weights a device has in use, where the model has it."""
    wanted = (Version.model_id == model_id) & (Version.weights_digest == digest)
    return session.scalar(select(Version.number).where(wanted))


def state_offered(before: str) -> str:
    """The state of an assignment that is being offered: one that is overdue stays so."""
    return before if before in OVERDUE else "offered"
