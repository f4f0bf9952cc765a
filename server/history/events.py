"""Writes events, in the transaction of the change: none is lost, none tells of what was undone.

Kinds are dotted, the thing first: `version.uploaded`, `rollout.finished`, `device.enrolled`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, insert, literal, select
from sqlalchemy.orm import Session

from server import logs
from server.tables import Assignment, Event, Rollout, now


def record(session: Session, kind: str, data: dict[str, Any] | None = None, **ids: Any) -> Event:
    """Add an event; `ids` are the columns of the things it is about (`model_id=...`).

    Who did it, and from where, is known of the request that is being served.
    """
    actor, address = logs.who()
    event = Event(kind=kind, data=data or {}, actor=actor, address=address, **ids)
    session.add(event)
    return event


def record_each(
    session: Session, kind: str, those: ColumnElement[bool], data: dict[str, Any] | None = None
) -> None:
    """Add an event about each assignment that `those` holds for, all in one statement."""
    actor, address = logs.who()
    columns = {
        "kind": literal(kind, Event.kind.type),
        "at": literal(now(), Event.at.type),
        "data": literal(data or {}, Event.data.type),
        "actor": literal(actor, Event.actor.type),
        "address": literal(address, Event.address.type),
        "model_id": Rollout.model_id,
        "version_id": Rollout.version_id,
        "package_id": Assignment.package_id,
        "rollout_id": Assignment.rollout_id,
        "device_id": Assignment.device_id,
        "assignment_id": Assignment.id,
    }
    rows = select(*columns.values()).join(Rollout, Rollout.id == Assignment.rollout_id).where(those)
    session.execute(insert(Event).from_select(list(columns), rows.order_by(Assignment.id)))


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
