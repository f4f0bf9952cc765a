"""What an aborted rollout had taken over from older ones, and has not brought to its version.

Those assignments are opened again: the device waits for another turn in the older rollout, unless
that was aborted too, a rollout since has taken the device, or it holds a newer version by now.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Select, and_, exists, not_, or_, select, update
from sqlalchemy.orm import Session, aliased

from server.history.events import ids_of, record, record_each
from server.rollouts.among import among
from server.rollouts.membership import STARTED
from server.rollouts.offering import number_in_use
from server.rollouts.states import BEFORE_SWAP
from server.tables import Assignment, DeviceModel, Model, Rollout, Version

#: Ends of an assignment after which the device is where it was.
UNMOVED = ("aborted", "failed", "rolled_back")


def to_give_back(session: Session, aborted: Rollout) -> Select[int]:
    """Ids of the assignments to open again."""
    model = session.get_one(Model, aborted.model_id)
    its, other, held = aliased(Assignment), aliased(Assignment), aliased(Version)
    passed_here = exists().where(
        its.rollout_id == aborted.id,
        its.device_id == Assignment.device_id,
        its.state.in_(UNMOVED),
        its.id > Assignment.id,
    )
    ended = select(Rollout.id).where(Rollout.model_id == model.id, Rollout.state == "aborted")
    same = and_(other.device_id == Assignment.device_id, other.model_id == model.id)
    since = and_(other.id > Assignment.id, other.rollout_id.not_in(ended))
    taken = exists().where(same, or_(since, other.finished_at.is_(None)))
    is_ahead = exists().where(
        held.model_id == model.id,
        held.weights_digest == DeviceModel.weights_digest,
        held.number > Version.number,
    )
    holding = and_(
        DeviceModel.device_id == Assignment.device_id, DeviceModel.model_name == model.name
    )
    return (
        select(Assignment.id)
        .join(Rollout, Rollout.id == Assignment.rollout_id)
        .join(Version, Version.id == Rollout.version_id)
        .join(DeviceModel, holding)
        .where(Assignment.state == "superseded", Assignment.model_id == model.id)
        .where(Rollout.state.in_(STARTED), or_(Rollout.rollback, not_(is_ahead)))
        .where(passed_here, not_(taken))
    )


def give_back(session: Session, aborted: Rollout, ids: list[int]) -> set[int]:
    """Open these again, where that is still right; returns their rollouts."""
    right = to_give_back(session, aborted).where(among(session, Assignment.id, ids))
    those = among(session, Assignment.id, list(session.scalars(right)))
    record_each(session, "assignment.reopened", those, {"aborted_rollout": aborted.id})
    rollouts = set(session.scalars(select(Assignment.rollout_id).where(those).distinct()))
    session.execute(
        update(Assignment)
        .where(those)
        .values(
            state="waiting",
            attempts=Assignment.attempts + 1,
            finished_at=None,
            offered_at=None,
            reached_at=None,
            held=None,
            held_detail=None,
        )
        .execution_options(synchronize_session=False)
    )
    return rollouts


def keep(session: Session, late: Assignment, digest: str, at: datetime) -> set[int]:
    """A device has come to the aborted version after all: an older one is nothing for it any more.

    Returns the rollouts that it leaves.
    """
    number = number_in_use(session, late.model_id, digest)
    query = (
        select(Assignment, Rollout)
        .join(Rollout, Rollout.id == Assignment.rollout_id)
        .join(Version, Version.id == Rollout.version_id)
        .where(
            Assignment.device_id == late.device_id,
            Assignment.model_id == late.model_id,
            Assignment.id < late.id,
            Assignment.finished_at.is_(None),
            Assignment.state.in_(BEFORE_SWAP),
            Version.number < (number or 0),
            not_(Rollout.rollback),
        )
    )
    left = set()
    for older, rollout in session.execute(query):
        older.state, older.finished_at = "superseded", at
        told = {"by_rollout": late.rollout_id}
        record(session, "assignment.superseded", told, **ids_of(older, rollout))
        left.add(rollout.id)
    return left
