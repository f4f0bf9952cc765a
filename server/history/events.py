"""Writes events, in the transaction of the change: none is lost, none tells of what was undone.

Kinds are dotted, the thing first: `version.uploaded`, `rollout.finished`, `device.enrolled`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from server.tables import Assignment, Event, Rollout


def record(session: Session, kind: str, data: dict[str, Any] | None = None, **ids: Any) -> Event:
    """Add an event; `ids` are the columns of the things it is about (`model_id=...`)."""
    event = Event(kind=kind, data=data or {}, **ids)
    session.add(event)
    return event


def ids_of(assignment: Assignment, rollout: Rollout) -> dict[str, Any]:
    """The columns of an event about an assignment."""
    return {
        "model_id": rollout.model_id,
        "version_id": rollout.version_id,
        "package_id": assignment.package_id,
        "rollout_id": rollout.id,
        "device_id": assignment.device_id,
        "assignment_id": assignment.id,
    }
