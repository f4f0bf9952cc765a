"""Rollouts and assignments, from their rows to what the API shows."""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.planner.plan import way_by
from server.rollouts.answers import AssignmentOut, PhaseOut, RolloutDetailOut, RolloutOut
from server.rollouts.steps import count_states
from server.rollouts.strategies import STRATEGIES
from server.rollouts.view import look, plan_of
from server.tables import Assignment, Device, Model, Package, Rollout, Version, now


def describe_rollout(session: Session, rollout: Rollout) -> RolloutOut:
    """The rollout in lists, and as an answer to orders."""
    same = RolloutOut.model_fields.keys() - {"model", "version", "assignments"}
    return RolloutOut(
        **{name: getattr(rollout, name) for name in same},
        model=session.get_one(Model, rollout.model_id).name,
        version=session.get_one(Version, rollout.version_id).number,
        assignments=count_states(session, rollout),
    )


def describe_whole(session: Session, rollout: Rollout) -> RolloutDetailOut:
    """The rollout with its phases."""
    snapshot = look(session, rollout, now()).snapshot
    outline = STRATEGIES[rollout.strategy].outline
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    query = (
        select(Assignment.phase, Assignment.state, func.count())
        .where(Assignment.rollout_id == rollout.id)
        .group_by(Assignment.phase, Assignment.state)
    )
    for phase, state, count in session.execute(query):
        counts[phase][state] = count
    progress = [
        PhaseOut(
            phase=number,
            quota=phase.quota,
            percent=phase.percent,
            soak_seconds=phase.soak_seconds,
            admitted=sum(counts[number].values()),
            assignments=dict(sorted(counts[number].items())),
        )
        for number, phase in enumerate(outline(plan_of(rollout), snapshot))
    ]
    shown = dict(describe_rollout(session, rollout))
    return RolloutDetailOut(
        **shown,
        devices=snapshot.devices,
        boxed=snapshot.boxed,
        held=_count_held(session, rollout),
        progress=progress,
    )


def _count_held(session: Session, rollout: Rollout) -> dict[str, int]:
    query = (
        select(Assignment.held, func.count())
        .where(Assignment.rollout_id == rollout.id, Assignment.finished_at.is_(None))
        .where(Assignment.held.is_not(None))
        .group_by(Assignment.held)
        .order_by(Assignment.held)
    )
    return {reason: count for reason, count in session.execute(query) if reason is not None}


def describe_assignment(session: Session, row: Assignment) -> AssignmentOut:
    """One device of a rollout."""
    package = session.get(Package, row.package_id) if row.package_id is not None else None
    same = AssignmentOut.model_fields.keys() - {"rollout", "device", "package", "way"}
    return AssignmentOut(
        **{name: getattr(row, name) for name in same},
        rollout=row.rollout_id,
        device=session.get_one(Device, row.device_id).name,
        package=package.sha256 if package is not None else None,
        way=_way(row, package),
    )


def _way(row: Assignment, package: Package | None) -> str | None:
    if row.size_bytes is None:
        return None
    return "chain" if row.chain else way_by([package.method] if package is not None else [])
