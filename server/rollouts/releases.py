"""Releases what was deployed already: in the time before versions were released, or were listed."""

from __future__ import annotations

import logging

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from server.db import reading, writing
from server.rollouts.membership import may_take
from server.tables import Model, Rollout, Version
from server.trust.repository import Trust

log = logging.getLogger("weft.rollouts")


def release_what_was_deployed(engine: Engine, trust: Trust) -> None:
    """Release what rollouts lead to that devices are in, or may still join; each once.

    For a server that releases by itself; another one holds such devices, and says why.
    """
    with reading(engine) as session:
        if not trust.can_release(session):
            return
        waiting = _unreleased(session)
    for version_id in waiting:
        with writing(engine) as session:
            version = session.get_one(Version, version_id)
            trust.release(session, version)
            log.info(
                "version %d of %s is released: it was deployed", version.number, version.model.name
            )


def _unreleased(session: Session) -> list[int]:
    wanted = {
        rollout
        for model in session.scalars(select(Model.id))
        for rollout in may_take(session, model)
    }
    query = (
        select(Version.id)
        .join(Rollout, Rollout.version_id == Version.id)
        .where(Rollout.id.in_(wanted))
        .where(Version.released_at.is_(None), Version.withdrawn_at.is_(None))
    )
    return sorted(set(session.scalars(query)))
