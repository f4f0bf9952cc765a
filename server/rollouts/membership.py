"""Which devices a rollout is for: conditions over Device and DeviceModel.

A device belongs to the rollout of its model that was started last, was not aborted, and whose
filter it matches. One that takes another rollout back is for the devices of that rollout which
hold its version, or may be on the way to it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from sqlalchemy import (
    ColumnElement,
    ScalarResult,
    Select,
    and_,
    exists,
    false,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.orm import Session, aliased

from server.filters import devices_where
from server.rollouts.states import BEFORE_SWAP
from server.tables import Assignment, Device, DeviceModel, Model, Rollout, Version
from shared.errors import UserError

log = logging.getLogger("weft.rollouts")

#: States of rollouts that devices may belong to.
STARTED = ("active", "paused", "finished")


def matching(session: Session, rollout: Rollout) -> ColumnElement[bool]:
    """The devices that the operator meant. Raises BadFilter where the filter no longer holds."""
    wanted = true() if rollout.filter is None else devices_where(session, rollout.filter)
    if rollout.rolls_back_id is not None:
        return and_(_to_take_back(session, rollout.rolls_back_id), wanted)
    return wanted


def waiting(session: Session, rollout: Rollout) -> Select[str] | None:
    """Ids of the devices that belong to the rollout and are not in it.

    None: a later rollout takes every device of the model.
    """
    later = _started_after(session, rollout)
    if any(other.takes_every_device for other in later):
        return None
    ids = [rollout.id, *(other.id for other in later)]
    conditions = [matching(session, rollout), not_(_in_rollouts(ids))]
    conditions += [not_(_match_or_nobody(session, other)) for other in _that_differ(later)]
    if not rollout.rollback:
        conditions.append(not_(_moved_on(session, rollout)))
    return _devices(session, rollout.model_id).where(*conditions)


def may_take(session: Session, model_id: int) -> set[int]:
    """The rollouts that a device may belong to: back to the last one that takes every device."""
    found: set[int] = set()
    for rollout in _newest_first(session, model_id):
        found.add(rollout.id)
        if rollout.takes_every_device:
            break
    return found


def blocked(model_id: int) -> ColumnElement[bool]:
    """Whether another rollout has the device, in the middle of a swap."""
    other = aliased(Assignment)
    return exists().where(
        other.device_id == DeviceModel.device_id,
        other.model_id == model_id,
        other.finished_at.is_(None),
        other.state.not_in(BEFORE_SWAP),
    )


def rollout_of(session: Session, device_id: str, model: Model) -> Rollout | None:
    """The rollout that a device belongs to."""
    of_device = select(Assignment.rollout_id).where(Assignment.device_id == device_id)
    its = set(session.scalars(of_device.where(Assignment.model_id == model.id)))
    started = list(_newest_first(session, model.id))
    others = {rollout.id for rollout in _that_differ(started)}
    for rollout in started:
        if rollout.id in its or rollout.takes_every_device:
            return rollout
        match = _devices(session, model.id).where(Device.id == device_id)
        if rollout.id in others and session.scalar(match.where(_match_or_nobody(session, rollout))):
            return rollout
    return None


def leads_only_back(session: Session, rollout: Rollout) -> bool:
    """Whether each device that it is for, and there are such, has a newer version in use."""
    its = _devices(session, rollout.model_id).where(_match_or_nobody(session, rollout))
    newer = _runs_newer(session, rollout)
    return _are_there(session, its.where(newer)) and not _are_there(session, its.where(not_(newer)))


def moving_to(rollout_id: int) -> ColumnElement[bool]:
    """Whether a device was offered that rollout's version, and has not said how it ended."""
    its = aliased(Assignment)
    return exists().where(
        its.rollout_id == rollout_id,
        its.device_id == DeviceModel.device_id,
        or_(its.offered_at.is_not(None), its.attempts > 1),
        its.result.is_(None),
    )


def _newest_first(session: Session, model_id: int) -> ScalarResult[Rollout]:
    mine = select(Rollout).where(Rollout.model_id == model_id, Rollout.state.in_(STARTED))
    return session.scalars(mine.order_by(Rollout.started_at.desc(), Rollout.id.desc()))


def _devices(session: Session, model_id: int) -> Select[str]:
    name = session.get_one(Model, model_id).name
    return (
        select(DeviceModel.device_id)
        .join(Device, Device.id == DeviceModel.device_id)
        .where(DeviceModel.model_name == name, Device.standing == "accepted")
    )


def is_later(rollout: Rollout) -> ColumnElement[bool]:
    """Whether another rollout of the model was started after this one, whatever became of it."""
    started = rollout.started_at or rollout.created_at
    later = or_(
        Rollout.started_at > started,
        and_(Rollout.started_at == started, Rollout.id > rollout.id),
    )
    return and_(Rollout.model_id == rollout.model_id, later)


def _started_after(session: Session, rollout: Rollout) -> list[Rollout]:
    query = select(Rollout).where(is_later(rollout), Rollout.state.in_(STARTED))
    return list(session.scalars(query))


def _moved_on(session: Session, rollout: Rollout) -> ColumnElement[bool]:
    """Whether a later rollout, aborted since, took the device to a version above this one's.

    This one would have nothing to offer it without the `rollback` mark.
    """
    aborted = select(Rollout.id).where(is_later(rollout), Rollout.state == "aborted")
    ids = list(session.scalars(aborted))
    if not ids:
        return false()
    return and_(_in_rollouts(ids), _runs_newer(session, rollout))


def _runs_newer(session: Session, rollout: Rollout) -> ColumnElement[bool]:
    """Whether a device has a version above the rollout's in use."""
    number = session.get_one(Version, rollout.version_id).number
    return exists().where(
        Version.model_id == rollout.model_id,
        Version.weights_digest == DeviceModel.weights_digest,
        Version.number > number,
    )


def _are_there(session: Session, query: Select[str]) -> bool:
    return session.scalar(query.limit(1)) is not None


def _that_differ(rollouts: Iterable[Rollout]) -> list[Rollout]:
    """Of those with the same filter one: a year of weekly rollouts to a group has one condition."""
    found = {(r.filter, r.rolls_back_id): r for r in reversed(list(rollouts))}
    return list(found.values())


def _in_rollouts(ids: list[int]) -> ColumnElement[bool]:
    its = aliased(Assignment)
    return exists().where(its.rollout_id.in_(ids), its.device_id == DeviceModel.device_id)


def _match_or_nobody(session: Session, rollout: Rollout) -> ColumnElement[bool]:
    """As `matching`; nobody where the filter no longer holds: a group may be gone."""
    try:
        return matching(session, rollout)
    except UserError as error:
        log.warning("filter of rollout %d: %s", rollout.id, error)
        return not_(true())


def _to_take_back(session: Session, rollout_id: int) -> ColumnElement[bool]:
    back = session.get_one(Rollout, rollout_id)
    digest = session.get_one(Version, back.version_id).weights_digest
    its = aliased(Assignment)
    inside = exists().where(
        its.rollout_id == rollout_id,
        its.device_id == DeviceModel.device_id,
        its.state != "superseded",
    )
    return and_(inside, or_(DeviceModel.weights_digest == digest, moving_to(rollout_id)))
