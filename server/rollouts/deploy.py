"""Starts rollouts, admits devices in batches, ends rollouts.

Functions that take a session act in the caller's write transaction. A rollout is the will of the
operator for its model: a newer one takes devices over from an older one, and a device that comes
later joins the newest one, even if that was finished; it joins none while the newest is aborted.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from server.db import BATCH_ROWS, reading, writing
from server.errors import BadRollout
from server.history.events import ids_of, record
from server.rollouts.states import BEFORE_SWAP
from server.tables import Assignment, Device, DeviceModel, Model, Rollout, Version, now


def find_rollout(session: Session, rollout_id: int) -> Rollout:
    """The rollout of that id. Raises BadRollout `not_found`."""
    rollout = session.get(Rollout, rollout_id)
    if rollout is None:
        raise BadRollout("not_found", f"there is no rollout {rollout_id}")
    return rollout


def start_rollout(session: Session, model: Model, version: Version) -> Rollout:
    """Create a rollout and admit its first batch; `admit_rest` sees to the others."""
    rollout = Rollout(model_id=model.id, version_id=version.id)
    session.add(rollout)
    session.flush()
    told = {"version": version.number}
    record(session, "rollout.created", told, **_ids(rollout))
    admit_batch(session, rollout)
    return rollout


def admit_rest(engine: Engine, rollout_id: int) -> None:
    """Admit batch after batch, each in its own transaction, until no device waits."""
    admitted = BATCH_ROWS
    while admitted == BATCH_ROWS:
        with writing(engine) as session:
            rollout = find_rollout(session, rollout_id)
            admitted = admit_batch(session, rollout) if rollout.state == "active" else 0


def resume_rollouts(engine: Engine) -> None:
    """At the server's start: admit what an interrupted start left waiting."""
    with reading(engine) as session:
        active = list(session.scalars(select(Rollout.id).where(Rollout.state == "active")))
    for rollout_id in active:
        admit_rest(engine, rollout_id)


def admit_batch(session: Session, rollout: Rollout) -> int:
    """Admit the next devices of the model, at most BATCH_ROWS; returns how many."""
    if newest_rollout(session, rollout.model_id) is not rollout:
        return 0
    chosen = _waiting(session, rollout)
    _admit(session, rollout, chosen)
    end_if_done(session, rollout)
    return len(chosen)


def join_newest(session: Session, device_id: str, model_name: str) -> None:
    """Admit a device that came after the rollout of its model began."""
    model = session.scalar(select(Model).where(Model.name == model_name))
    rollout = newest_rollout(session, model.id) if model is not None else None
    if rollout is None or rollout.state == "aborted":
        return
    if rollout.state == "finished":
        rollout.state, rollout.finished_at = "active", None
        record(session, "rollout.reopened", **_ids(rollout), device_id=device_id)
    _admit(session, rollout, [device_id])
    end_if_done(session, rollout)


def newest_rollout(session: Session, model_id: int) -> Rollout | None:
    """The last rollout of a model."""
    mine = select(Rollout).where(Rollout.model_id == model_id)
    return session.scalar(mine.order_by(Rollout.id.desc()).limit(1))


def _waiting(session: Session, rollout: Rollout) -> tuple[str, ...]:
    """Devices that run the model and are not in the rollout, nor in the middle of a swap."""
    inside = select(Assignment.device_id).where(
        (Assignment.rollout_id == rollout.id)
        | (
            (Assignment.model_id == rollout.model_id)
            & Assignment.finished_at.is_(None)
            & Assignment.state.not_in(BEFORE_SWAP)
        )
    )
    name = select(Model.name).where(Model.id == rollout.model_id).scalar_subquery()
    query = (
        select(DeviceModel.device_id)
        .where(DeviceModel.model_name == name, DeviceModel.device_id.not_in(inside))
        .order_by(DeviceModel.device_id)
        .limit(BATCH_ROWS)
    )
    return tuple(session.scalars(query))


def _admit(session: Session, rollout: Rollout, devices: Collection[str]) -> None:
    _supersede(session, rollout, devices)
    model = session.get_one(Model, rollout.model_id)
    target = session.get_one(Version, rollout.version_id).weights_digest
    held = select(DeviceModel.device_id).where(
        DeviceModel.model_name == model.name,
        DeviceModel.device_id.in_(devices),
        DeviceModel.weights_digest == target,
    )
    there = set(session.scalars(held))
    for device_id in devices:
        assignment = Assignment(rollout_id=rollout.id, device_id=device_id, model_id=model.id)
        if device_id in there:
            assignment.state = assignment.result = "committed"
            assignment.finished_at = now()
        session.add(assignment)
    bump(session, set(devices) - there)
    session.flush()


def _supersede(session: Session, rollout: Rollout, devices: Collection[str]) -> None:
    """Close what these devices had open of the model, and the rollouts that this empties."""
    query = select(Assignment).where(
        Assignment.model_id == rollout.model_id,
        Assignment.device_id.in_(devices),
        Assignment.finished_at.is_(None),
    )
    for old in session.scalars(query):
        old.state, old.finished_at = "superseded", now()
        told = {"by_rollout": rollout.id}
        record(session, "assignment.superseded", told, **ids_of(old, old.rollout))
    session.flush()
    mine = (Rollout.model_id == rollout.model_id) & (Rollout.state == "active")
    for older in session.scalars(select(Rollout).where(mine, Rollout.id < rollout.id)):
        end_if_done(session, older, superseded=True)


def end_if_done(session: Session, rollout: Rollout, superseded: bool = False) -> None:
    """Finish an active rollout that has nothing open.

    One without any device waits for the first, unless a newer rollout takes its place.
    """
    mine = select(Assignment.finished_at).where(Assignment.rollout_id == rollout.id)
    first_open = session.scalar(
        mine.where(Assignment.finished_at.is_(None)).limit(1).exists().select()
    )
    has_any = session.scalar(mine.exists().select())
    if rollout.state != "active" or first_open or not (has_any or superseded):
        return
    rollout.state, rollout.finished_at = "finished", now()
    record(session, "rollout.finished", count_states(session, rollout), **_ids(rollout))


def abort_rollout(session: Session, rollout: Rollout) -> None:
    """Take back what no device has begun to swap in. Raises BadRollout `not_active`."""
    if rollout.state != "active":
        raise BadRollout("not_active", f"rollout {rollout.id} is {rollout.state}")
    still = (Assignment.rollout_id == rollout.id) & Assignment.finished_at.is_(None)
    taken = list(session.scalars(select(Assignment.device_id).where(still)))
    session.execute(update(Assignment).where(still).values(state="aborted", finished_at=now()))
    bump(session, taken)
    rollout.state, rollout.finished_at = "aborted", now()
    record(session, "rollout.aborted", {"devices": len(taken)}, **_ids(rollout))


def bump(session: Session, devices: Collection[str]) -> None:
    """Tell devices, by a new ETag, that what they should run has changed."""
    listed = sorted(devices)
    for start in range(0, len(listed), BATCH_ROWS):
        part = listed[start : start + BATCH_ROWS]
        session.execute(
            update(Device)
            .where(Device.id.in_(part))
            .values(generation=Device.generation + 1)
            .execution_options(synchronize_session="fetch")
        )


def count_states(session: Session, rollout: Rollout) -> dict[str, int]:
    """State -> number of assignments in it."""
    query = (
        select(Assignment.state, func.count())
        .where(Assignment.rollout_id == rollout.id)
        .group_by(Assignment.state)
    )
    return dict(session.execute(query).all())


def _ids(rollout: Rollout) -> dict[str, Any]:
    return {
        "rollout_id": rollout.id,
        "model_id": rollout.model_id,
        "version_id": rollout.version_id,
    }
