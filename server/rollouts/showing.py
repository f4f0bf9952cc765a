"""Rollouts and assignments, from their rows to what the API shows."""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.planner.plan import way_by
from server.rollouts.answers import AssignmentOut, PhaseOut, RolloutDetailOut, RolloutOut
from server.rollouts.steps import count_states
from server.rollouts.strategies.staged import quota_of
from server.rollouts.view import look
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
    devices = snapshot.devices
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    query = (
        select(Assignment.phase, Assignment.state, func.count())
        .where(Assignment.rollout_id == rollout.id)
        .group_by(Assignment.phase, Assignment.state)
    )
    for phase, state, count in session.execute(query):
        counts[phase][state] = count
    named = len(rollout.phases) if rollout.strategy == "staged" else rollout.phase + 1
    progress = [
        PhaseOut(
            phase=phase,
            quota=_quota(rollout, phase, devices),
            admitted=sum(counts[phase].values()),
            assignments=dict(sorted(counts[phase].items())),
        )
        for phase in range(max(named, *counts, 1))
    ]
    shown = describe_rollout(session, rollout)
    return RolloutDetailOut(**dict(shown), devices=devices, boxed=snapshot.boxed, progress=progress)


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


def _quota(rollout: Rollout, phase: int, devices: int) -> int:
    if rollout.strategy == "doubling":
        return min(1 << phase, devices)
    return quota_of(rollout.phases[phase]["percent"], phase, devices)
