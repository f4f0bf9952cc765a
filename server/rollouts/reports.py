"""What a device's report means for its assignment and its rollout."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.errors import BadDevice
from server.history.events import ids_of, record
from server.rollouts.deploy import bump, end_if_done
from server.rollouts.states import FINAL, may_follow, state_after
from server.tables import Assignment, Rollout, Version, now
from shared.wire import Report


def take_assignment_report(session: Session, device_id: str, report: Report) -> None:
    """Put the assignment that a report is about into the state that follows.

    A report on an assignment that has ended already (superseded while the device worked) changes
    nothing but is kept as an event. Raises BadDevice `unknown_assignment`.
    """
    if report.assignment is None:
        return
    assignment = _assignment_of(session, device_id, report.assignment)
    rollout = session.get_one(Rollout, assignment.rollout_id)
    target = session.get_one(Version, rollout.version_id).weights_digest
    state = state_after(report.result, report.state, report.weights_digest == target)
    if not may_follow(assignment.state, state):
        record(session, "assignment.late_report", _told(report), **ids_of(assignment, rollout))
        return
    assignment.state, assignment.error = state, _error(report, state)
    record(session, f"assignment.{state}", _told(report), **ids_of(assignment, rollout))
    if state in FINAL:
        assignment.result, assignment.finished_at, assignment.held = report.result, now(), None
        bump(session, [device_id])
        session.flush()
        end_if_done(session, rollout)


def _assignment_of(session: Session, device_id: str, assignment_id: int) -> Assignment:
    wanted = (Assignment.id == assignment_id) & (Assignment.device_id == device_id)
    found = session.scalar(select(Assignment).where(wanted))
    if found is None:
        raise BadDevice("unknown_assignment", f"assignment {assignment_id} is not this device's")
    return found


def _error(report: Report, state: str) -> dict[str, Any] | None:
    if report.error is not None:
        return report.error.model_dump()
    if report.result == "committed" and state == "failed":
        text = f"the device committed the weights {report.weights_digest}, not the target"
        return {"code": "result.mismatch", "message": text}
    return None


def _told(report: Report) -> dict[str, Any]:
    """What history keeps of a report."""
    kept = {"result", "state", "weights_digest", "seconds", "health", "error", "tensor_digests"}
    return report.model_dump(include=kept, exclude_none=True)
