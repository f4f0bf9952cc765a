"""Admits devices to a rollout, a batch in one transaction.

A device that an older rollout has open is taken over from it, as long as it has not begun to swap.
The caller has raised the rollout's revision in the same transaction: that is what keeps two
evaluators from admitting for the same free place.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import (
    CursorResult,
    Select,
    String,
    and_,
    case,
    exists,
    func,
    insert,
    literal,
    not_,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.orm import Session, aliased

from server.history.events import record_each
from server.rollouts import membership
from server.rollouts.among import among
from server.rollouts.box import boxed
from server.rollouts.draw import place
from server.rollouts.states import BEFORE_SWAP
from server.tables import Assignment, Device, DeviceModel, Model, Rollout, Version


def choose(session: Session, rollout: Rollout, count: int) -> list[str]:
    """The next devices in the order of the draw, of those that wait; sorted by their ids."""
    query = membership.waiting(session, rollout)
    if query is None:
        return []
    out = or_(membership.blocked(rollout.model_id), boxed(session, rollout))
    return _draw(session, rollout, query.where(not_(out)), count)


def choose_again(session: Session, rollout: Rollout, count: int) -> list[str]:
    """As `choose`, of those that an operator had retried."""
    query = (
        select(Device.id)
        .join(Assignment, Assignment.device_id == Device.id)
        .where(Assignment.rollout_id == rollout.id, Assignment.state == "waiting")
    )
    return _draw(session, rollout, query, count)


def _draw(session: Session, rollout: Rollout, query: Select[str], count: int) -> list[str]:
    """The next `count`, sorted by their ids: a batch of neighbours touches far fewer pages."""
    drawn = query.order_by(place(rollout.id), Device.id).limit(count).subquery()
    return list(session.scalars(select(drawn.c[0]).order_by(drawn.c[0])))


def admit(session: Session, rollout: Rollout, devices: Sequence[str], at: datetime) -> set[int]:
    """Put the devices into the rollout; returns the older rollouts that lost some of them.

    Those that hold the version already are committed at once, with nothing to do.
    """
    older = _supersede(session, rollout, devices, at)
    session.execute(
        insert(Assignment).from_select(
            [
                "rollout_id",
                "model_id",
                "phase",
                "created_at",
                "admitted_at",
                "device_id",
                "from_digest",
                "state",
                "result",
                "finished_at",
            ],
            _rows(session, rollout, devices, at),
        )
    )
    bump(session, devices)
    return older


def admit_again(session: Session, rollout: Rollout, devices: Sequence[str], at: datetime) -> None:
    """Let devices that were to be retried have another turn."""
    session.execute(
        update(Assignment)
        .where(
            Assignment.rollout_id == rollout.id,
            Assignment.state == "waiting",
            among(session, Assignment.device_id, devices),
        )
        .values(
            state="idle",
            phase=rollout.phase,
            admitted_at=at,
            reached_at=None,
            offered_at=None,
            held=None,
            held_detail=None,
        )
        .execution_options(synchronize_session=False)
    )
    bump(session, devices)


def bump(session: Session, devices: Collection[str]) -> None:
    """Tell devices, by a new ETag, that what they should run may have changed."""
    session.execute(
        update(Device)
        .where(among(session, Device.id, devices))
        .values(generation=Device.generation + 1)
        .execution_options(synchronize_session=False)
    )
    for known in session.identity_map.values():
        if isinstance(known, Device):
            session.expire(known, ["generation"])


def _rows(
    session: Session, rollout: Rollout, devices: Sequence[str], at: datetime
) -> Select[tuple[object, ...]]:
    target = session.get_one(Version, rollout.version_id).weights_digest
    moving = (
        true()
        if rollout.rolls_back_id is None
        else not_(membership.moving_to(rollout.rolls_back_id))
    )
    is_there = and_(func.coalesce(DeviceModel.weights_digest, "") == target, moving)
    other = aliased(Assignment)
    taken = exists().where(
        other.device_id == DeviceModel.device_id,
        other.model_id == rollout.model_id,
        other.finished_at.is_(None),
    )
    moment = Assignment.created_at.type
    return select(
        literal(rollout.id),
        literal(rollout.model_id),
        literal(rollout.phase),
        literal(at, moment),
        literal(at, moment),
        DeviceModel.device_id,
        DeviceModel.weights_digest,
        case((is_there, literal("committed", String)), else_=literal("idle", String)),
        case((is_there, literal("committed", String)), else_=null()),
        case((is_there, literal(at, moment)), else_=null()),
    ).where(
        DeviceModel.model_name == session.get_one(Model, rollout.model_id).name,
        among(session, DeviceModel.device_id, devices),
        not_(taken),
    )


def _supersede(
    session: Session, rollout: Rollout, devices: Sequence[str], at: datetime
) -> set[int]:
    """Close what these devices have open of the model, where it can be taken back.

    What a later rollout has is left: it came first, after the devices had been chosen for this one.
    """
    later = select(Rollout.id).where(membership.is_later(rollout))
    those = and_(
        Assignment.model_id == rollout.model_id,
        Assignment.rollout_id.not_in(later),
        among(session, Assignment.device_id, devices),
        Assignment.finished_at.is_(None),
        Assignment.state.in_(BEFORE_SWAP),
    )
    older = set(session.scalars(select(Assignment.rollout_id).where(those).distinct()))
    if older:
        record_each(session, "assignment.superseded", those, {"by_rollout": rollout.id})
        session.execute(
            update(Assignment)
            .where(those)
            .values(state="superseded", finished_at=at)
            .execution_options(synchronize_session=False)
        )
    return older


def rows_changed(result: object) -> int:
    """How many rows an UPDATE has changed."""
    assert isinstance(result, CursorResult)
    return int(result.rowcount)
