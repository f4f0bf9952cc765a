"""Brings a device back whose weights changed without the server: after a restore, or by hand."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.history.events import ids_of, record
from server.rollouts.evaluation import settle
from server.rollouts.offering import number_in_use
from server.tables import Assignment, Model, Rollout, Version


def bring_back(
    session: Session, device_id: str, model_name: str, digest: str | None, older: int = 0
) -> None:
    """Give a device its turn again in the newest rollout that it was in, where it left its version.

    It waits for its place under the rollout's cap like any other, and its budget holds as ever.
    Nothing happens where assignment `older` is the newest one: that has just been judged. Nor
    where, without an older one, the device has a newer version: somebody has brought that along,
    and the rollout could not lead back from it.
    """
    query = (
        select(Assignment, Rollout, Version)
        .join(Rollout, Assignment.rollout_id == Rollout.id)
        .join(Version, Rollout.version_id == Version.id)
        .join(Model, Assignment.model_id == Model.id)
        .where(Assignment.device_id == device_id, Model.name == model_name, Assignment.id > older)
        .order_by(Assignment.id.desc())
        .limit(1)
    )
    for newest, rollout, target in session.execute(query):
        is_there = digest == target.weights_digest
        if newest.state != "committed" or rollout.state == "aborted" or is_there:
            return
        number = number_in_use(session, newest.model_id, digest) or 0
        if not older and number > target.number and not rollout.rollback:
            return
        newest.state, newest.result, newest.finished_at = "waiting", None, None
        newest.attempts += 1  # else the device would take it for what it has finished already
        rollout.revision += 1
        record(
            session, "assignment.reopened", {"weights_digest": digest}, **ids_of(newest, rollout)
        )
        session.flush()
        settle(session, [rollout.id])
