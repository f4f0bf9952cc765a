"""What a device's report means for its assignment and its rollout."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.errors import BadDevice
from server.history.events import ids_of, record
from server.rollouts.admission import bump
from server.rollouts.evaluation import settle
from server.rollouts.giving_back import keep
from server.rollouts.returning import bring_back
from server.rollouts.states import FINAL, may_follow, state_after
from server.tables import Assignment, Device, Rollout, Version, now
from shared.wire import Report


def take_assignment_report(session: Session, device_id: str, report: Report) -> None:
    """Put the assignment that a report is about into the state that follows.

    A report on an assignment that has ended already (superseded while the device worked) changes
    nothing there but is kept as an event; so is one on an assignment that was made after the backup
    from which the server was restored. Raises BadDevice `unknown_assignment` for another device's.
    """
    assignment = _assignment_of(session, device_id, report.assignment)
    if assignment is None:
        return
    rollout = session.get_one(Rollout, assignment.rollout_id)
    target = session.get_one(Version, rollout.version_id).weights_digest
    state = state_after(report.result, report.state, report.weights_digest == target)
    if not may_follow(assignment.state, state):
        record(session, "assignment.late_report", told_of(report), **ids_of(assignment, rollout))
        # A newer rollout may have closed the matter while the device was still busy with this one.
        bring_back(session, device_id, report.model, report.weights_digest, assignment.id)
        if state == "committed" and rollout.state == "aborted":
            bump(session, [device_id])
            settle(session, keep(session, assignment, target, now()))
        return
    was_committed = assignment.state == "committed"  # and left by hand since
    assignment.state, assignment.error = state, _error(report, state)
    record(session, f"assignment.{state}", told_of(report), **ids_of(assignment, rollout))
    if state in FINAL:
        if not was_committed:
            _count_failure(session.get_one(Device, device_id), state)
        assignment.result, assignment.finished_at, assignment.held = report.result, now(), None
        bump(session, [device_id])
        settle(session, {rollout.id, *_waiting_for(session, rollout)})


def _count_failure(device: Device, state: str) -> None:
    """Count updates that ended badly, until one ends well: by what was found, not what was said."""
    if state == "committed":
        device.failures = 0
    elif state in ("failed", "rolled_back"):
        device.failures += 1


def _waiting_for(session: Session, rollout: Rollout) -> list[int]:
    """Newer rollouts of the model, which may take the device over now that it is free."""
    newer = (Rollout.model_id == rollout.model_id) & (Rollout.id > rollout.id)
    return list(session.scalars(select(Rollout.id).where(newer, Rollout.state == "active")))


def _assignment_of(
    session: Session, device_id: str, assignment_id: int | None
) -> Assignment | None:
    if assignment_id is None:
        return None
    found = session.get(Assignment, assignment_id)
    if found is not None and found.device_id != device_id:
        raise BadDevice("unknown_assignment", f"assignment {assignment_id} is not this device's")
    return found


def _error(report: Report, state: str) -> dict[str, Any] | None:
    if report.error is not None:
        return report.error.model_dump()
    if report.result == "committed" and state == "failed":
        text = f"the device committed the weights {report.weights_digest}, not the target"
        return {"code": "result.mismatch", "message": text}
    return None


def told_of(report: Report) -> dict[str, Any]:
    """What history keeps of a report; by its counter it is found among the signed ones."""
    about = {"counter", "result", "state", "weights_digest"}
    how = {"seconds", "health", "error", "tensor_digests"}
    return report.model_dump(include=about | how, exclude_none=True)
