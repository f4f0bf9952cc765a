"""Second chances: devices tried again, and devices taken back to where they came from."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from server.errors import BadRollout
from server.history.events import record
from server.publish.release import Release
from server.registry.versions import find_version
from server.rollouts.admission import rows_changed
from server.rollouts.deploy import create_rollout, withdraw_rollout
from server.rollouts.evaluation import settle
from server.rollouts.states import RETRIABLE
from server.rollouts.steps import about
from server.tables import Assignment, Model, Rollout, Version


def retry(session: Session, rollout: Rollout, device_id: str | None) -> int:
    """Let devices that failed have another turn, when the cap allows; returns how many.

    Those that a later rollout has admitted are left alone. Raises BadRollout `not_active`,
    `wrong_state`, `nothing_to_retry`.
    """
    if rollout.state == "aborted":
        raise BadRollout("not_active", f"rollout {rollout.id} is aborted")
    if rollout.state == "ready":
        raise BadRollout("wrong_state", f"rollout {rollout.id} has not been started")
    again = session.execute(
        update(Assignment)
        .where(*_retriable(rollout, device_id))
        .values(
            state="waiting",
            attempts=Assignment.attempts + 1,
            finished_at=None,
            offered_at=None,
            reached_at=None,
            held=None,
            held_detail=None,
            result=None,
            error=None,
        )
        .execution_options(synchronize_session=False)
    )
    count = rows_changed(again)
    if not count:
        raise BadRollout("nothing_to_retry", "no device of that kind has failed in this rollout")
    rollout.revision += 1
    record(session, "rollout.retried", {"devices": count}, **about(rollout), device_id=device_id)
    settle(session, [rollout.id])
    return count


def _retriable(rollout: Rollout, device_id: str | None) -> list[ColumnElement[bool]]:
    later = aliased(Assignment)
    taken = exists().where(
        later.device_id == Assignment.device_id,
        later.model_id == Assignment.model_id,
        later.id > Assignment.id,
    )
    conditions = [
        Assignment.rollout_id == rollout.id,
        Assignment.state.in_(RETRIABLE),
        ~taken,
    ]
    return conditions if device_id is None else [*conditions, Assignment.device_id == device_id]


def roll_back(session: Session, rollout: Rollout, number: int | None, release: Release) -> Rollout:
    """Start a rollout that takes the devices of this one back; the old one is aborted.

    Only for devices that hold the version, or may be on the way to it. Raises BadRollout
    `wrong_state`, `no_previous_version`; BadVersion `not_found`, and what `release` raises.
    """
    if rollout.state == "ready":
        raise BadRollout("wrong_state", f"rollout {rollout.id} has not been started")
    model = session.get_one(Model, rollout.model_id)
    version = (
        _version_before(session, rollout)
        if number is None
        else find_version(session, model, number)
    )
    if version.id == rollout.version_id:
        raise BadRollout("wrong_version", "that is the version to be taken back")
    withdraw_rollout(session, rollout)
    back = Rollout(
        model_id=model.id,
        version_id=version.id,
        phases=[{"percent": 100, "soak_seconds": 0}],
        deadline_seconds=rollout.deadline_seconds,
        rollback=True,
        rolls_back_id=rollout.id,
    )
    told: dict[str, Any] = {"version": version.number, "rolls_back": rollout.id}
    create_rollout(session, back, told, True, release)
    return back


def _version_before(session: Session, rollout: Rollout) -> Version:
    """The version that most of the devices had when they were admitted."""
    query = (
        select(Version)
        .join(Assignment, Assignment.from_digest == Version.weights_digest)
        .where(
            Assignment.rollout_id == rollout.id,
            Version.model_id == rollout.model_id,
            Version.id != rollout.version_id,
            Version.removed_at.is_(None),
            Version.withdrawn_at.is_(None),
        )
        .group_by(Version.id)
        .order_by(func.count().desc(), Version.number.desc())
        .limit(1)
    )
    found = session.scalar(query)
    if found is None:
        text = "the weights that the devices had before are no version of the model"
        raise BadRollout("no_previous_version", text)
    return found
