"""A version was withdrawn: what leads to it, or through it, ends.

    rollouts to it            aborted, also finished ones: nobody joins them any more
    their open assignments    aborted by that, so nothing is offered to their devices
    chains through it         planned anew: their devices are told at their next poll

What devices run already, they go on to run: `weft rollouts roll-back` takes them elsewhere.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.rollouts.admission import bump
from server.rollouts.deploy import end_for_withdrawal
from server.tables import Assignment, Package, Rollout, Version


def end_what_leads_to(session: Session, version: Version) -> None:
    """End it all, in the transaction in which the version is withdrawn."""
    those = (Rollout.version_id == version.id) & (Rollout.state != "aborted")
    for rollout in list(session.scalars(select(Rollout).where(those).order_by(Rollout.id))):
        end_for_withdrawal(session, rollout, version.number)
    bump(session, _on_the_way_through(session, version))


def _on_the_way_through(session: Session, version: Version) -> list[str]:
    """Devices that were offered a chain with a package to the version."""
    leads_to = select(Package.id).where(Package.target_version_id == version.id)
    packages = set(session.scalars(leads_to))
    query = select(Assignment.device_id, Assignment.chain).where(
        Assignment.model_id == version.model_id,
        Assignment.finished_at.is_(None),
        Assignment.chain.is_not(None),
    )
    return [device for device, ids in session.execute(query) if packages & set(ids or ())]
