"""What operators order: create, start, pause, resume and abort rollouts.

Functions that take a session act in the caller's write transaction. A rollout is the will of the
operator for its devices: a newer one takes them over from an older one, and a device that comes
later joins the newest one that it matches, even if that was finished.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from server import logs
from server.errors import BadRollout
from server.history.events import record
from server.publish.release import Release
from server.rollouts.evaluation import settle
from server.rollouts.membership import STARTED, leads_only_back, rollout_of
from server.rollouts.steps import about, let_others_take
from server.tables import DeviceModel, Model, Rollout, Version, now


def find_rollout(session: Session, rollout_id: int) -> Rollout:
    """The rollout of that id. Raises BadRollout `not_found`."""
    rollout = session.get(Rollout, rollout_id)
    if rollout is None:
        raise BadRollout("not_found", f"there is no rollout {rollout_id}")
    return rollout


def create_rollout(
    session: Session, rollout: Rollout, told: dict[str, Any], start: bool, release: Release
) -> None:
    """Add a rollout, and start it or leave it `ready`; `told` is what history keeps of it.

    Raises what `start_rollout` raises.
    """
    rollout.state = "ready"
    session.add(rollout)
    session.flush()
    record(session, "rollout.created", told, **about(rollout))
    if start:
        start_rollout(session, rollout, release)


def start_rollout(session: Session, rollout: Rollout, release: Release) -> None:
    """Begin with the first phase, to a version that is released.

    Raises BadRollout `wrong_state`, `needs_rollback`, and what `release` raises.
    """
    _require(rollout, "ready")
    if not rollout.rollback and leads_only_back(session, rollout):
        text = "each device that the rollout is for has a newer version in use"
        raise BadRollout("needs_rollback", text)
    release(session, session.get_one(Version, rollout.version_id))
    _change(rollout, "active")
    rollout.started_at = now()
    record(session, "rollout.started", {}, **about(rollout))
    record(session, "rollout.phase_started", {"phase": 0}, **about(rollout))
    older = (Rollout.model_id == rollout.model_id) & (Rollout.state == "active")
    with logs.beyond_scope():
        others = set(session.scalars(select(Rollout.id).where(older)))
    settle(session, others | {rollout.id})


def pause_rollout(session: Session, rollout: Rollout) -> None:
    """Admit and offer nothing more; what was offered goes on. Raises BadRollout."""
    _require(rollout, "active")
    _change(rollout, "paused")
    rollout.reason = {"code": "paused", "message": "an operator has paused it"}
    record(session, "rollout.paused", {}, **about(rollout))


def resume_rollout(session: Session, rollout: Rollout) -> None:
    """Go on after a pause. Raises BadRollout."""
    _require(rollout, "paused")
    _change(rollout, "active")
    rollout.reason = None
    record(session, "rollout.resumed", {}, **about(rollout))
    settle(session, [rollout.id])


def abort_rollout(session: Session, rollout: Rollout) -> None:
    """Take back what has not ended, for good. Raises BadRollout `not_active`."""
    if rollout.state in ("finished", "aborted"):
        raise BadRollout("not_active", f"rollout {rollout.id} is {rollout.state}")
    _abort(session, rollout, "operator", "an operator has aborted it")


def withdraw_rollout(session: Session, rollout: Rollout) -> None:
    """Abort a rollout that is rolled back, also a finished one: nobody joins it any more."""
    if rollout.state != "aborted":
        _abort(session, rollout, "rolled_back", "an operator has rolled it back")


def end_for_withdrawal(session: Session, rollout: Rollout, number: int) -> None:
    """Abort a rollout, in whatever state, whose version was withdrawn."""
    _abort(session, rollout, "version_withdrawn", f"version {number} was withdrawn")


def _abort(session: Session, rollout: Rollout, code: str, message: str) -> None:
    was_started = rollout.state != "ready"
    _change(rollout, "aborted")
    rollout.finished_at = now()
    rollout.reason = {"code": code, "message": message}
    record(session, "rollout.aborted", {"reason": rollout.reason}, **about(rollout))
    if was_started:
        let_others_take(session, rollout, now())
    settle(session, [rollout.id])


@logs.beyond_scope()
def join_newest(session: Session, device_id: str, model_name: str) -> None:
    """Let a device that came to a model have its place in the rollout that it belongs to."""
    model = session.scalar(select(Model).where(Model.name == model_name))
    rollout = rollout_of(session, device_id, model) if model is not None else None
    if rollout is not None:
        settle(session, [rollout.id])


@logs.beyond_scope()
def device_changed(session: Session, device_id: str) -> None:
    """Call where something of a device has changed that filters ask for: it may now match one."""
    session.flush()
    names = select(DeviceModel.model_name).where(DeviceModel.device_id == device_id)
    asking = (
        select(Model.name)
        .join(Rollout, Rollout.model_id == Model.id)
        .where(Model.name.in_(names), Rollout.filter.is_not(None), Rollout.state.in_(STARTED))
        .distinct()
    )
    for name in list(session.scalars(asking)):
        join_newest(session, device_id, name)


def _require(rollout: Rollout, state: str) -> None:
    if rollout.state == state:
        return
    if rollout.state == "aborted" or (rollout.state == "finished" and state != "ready"):
        raise BadRollout("not_active", f"rollout {rollout.id} is {rollout.state}")
    raise BadRollout("wrong_state", f"rollout {rollout.id} is {rollout.state}, not {state}")


def _change(rollout: Rollout, state: str) -> None:
    """Another state: a decision that was taken in the old one is void."""
    rollout.state = state
    rollout.revision += 1
