"""What a device should run now: the answer to a poll.

1. an idle device is told "not modified" after one query
2. otherwise each open assignment is planned from what the device holds
3. where the outcome differs from the one told before, it is stored; the first offer is dated, and
   another outcome than before makes a new generation, hence a new ETag
4. packages that are missing are asked for, after the transaction

A held assignment is planned anew at every poll: whatever it waits for (a published package) needs
to notify nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Engine, Row, select
from sqlalchemy.orm import Session

from server.api.files import is_known
from server.db import reading, writing
from server.history.events import ids_of, record
from server.planner.offers import plan_for
from server.planner.plan import Build, Download, FullPackage, Hold, Plan
from server.tables import Assignment, Device, DeviceModel, Model, Package, Rollout, Version, now
from shared.wire import PACKAGES_PATH, Desired, DesiredModel, PackageOffer


@dataclass(frozen=True)
class Answer:
    """What a poll gets; `desired` None: not modified. `wanted`: packages that must be built."""

    generation: int
    desired: Desired | None = None
    wanted: list[FullPackage] = field(default_factory=list)


def etag_of(generation: int) -> str:
    """The ETag of a generation."""
    return f'"{generation}"'


def answer_poll(engine: Engine, device_id: str, if_none_match: str | None) -> Answer:
    """The answer to a poll of a device that is known."""
    with reading(engine) as session:
        generation, waits = _glance(session, device_id)
    told = is_known(if_none_match, etag_of(generation))
    if told and not waits:  # 1
        return Answer(generation)
    with writing(engine) as session:
        answer = _plan_all(session, device_id)
    if told and answer.generation == generation:
        return Answer(generation, wanted=answer.wanted)
    return answer


def _glance(session: Session, device_id: str) -> tuple[int, bool]:
    """The device's generation, and whether something of it is held."""
    held = select(Assignment.id).where(
        Assignment.device_id == device_id,
        Assignment.finished_at.is_(None),
        Assignment.held.is_not(None),
    )
    query = select(Device.generation, held.exists()).where(Device.id == device_id)
    generation, waits = session.execute(query).one()
    return generation, waits


def _plan_all(session: Session, device_id: str) -> Answer:
    device = session.get_one(Device, device_id)
    query = (
        select(Assignment, Rollout, Version, Model, DeviceModel)
        .join(Rollout, Assignment.rollout_id == Rollout.id)
        .join(Version, Rollout.version_id == Version.id)
        .join(Model, Version.model_id == Model.id)
        .join(
            DeviceModel,
            (DeviceModel.device_id == device_id) & (DeviceModel.model_name == Model.name),
        )
        .where(Assignment.device_id == device_id, Assignment.finished_at.is_(None))
        .order_by(Model.name)
    )
    models: list[DesiredModel] = []
    wanted: list[FullPackage] = []
    for row in session.execute(query):
        assignment, _, version, model, held = row
        plan = plan_for(session, device, held, version)  # 2
        _store(session, device, row, plan)  # 3
        if isinstance(plan, Build):
            wanted.append(plan.wanted)
        models.append(_describe(session, model, version, assignment))
    return Answer(device.generation, Desired(models=models), wanted)


def _store(
    session: Session,
    device: Device,
    row: Row[Assignment, Rollout, Version, Model, DeviceModel],
    plan: Plan,
) -> None:
    """Keep the plan's outcome on the assignment, if it is another one."""
    assignment, rollout = row[0], row[1]
    reason = plan.reason if isinstance(plan, Build | Hold) else None
    package_id = plan.offer.package_id if isinstance(plan, Download) else None
    before = (assignment.held, assignment.package_id, assignment.offered_at is None)
    if before == (reason, package_id, reason is not None):
        return
    told_before = assignment.held is not None or assignment.offered_at is not None
    assignment.held, assignment.package_id = reason, package_id
    if reason is None:
        assignment.state, kind = "offered", "assignment.offered"
        assignment.offered_at = assignment.offered_at or now()
    else:
        kind = "assignment.held"
    if told_before:
        device.generation += 1
    record(session, kind, {"reason": reason} if reason else {}, **ids_of(assignment, rollout))


def _describe(
    session: Session, model: Model, version: Version, assignment: Assignment
) -> DesiredModel:
    offer = None
    if assignment.package_id is not None:
        package = session.get_one(Package, assignment.package_id)
        base = session.get(Version, package.base_version_id) if package.base_version_id else None
        offer = PackageOffer(
            sha256=package.sha256,
            size=package.size_bytes,
            url=f"{PACKAGES_PATH}/{package.sha256}",
            base_digest=base.weights_digest if base is not None else None,
            method=package.method,
        )
    return DesiredModel(
        model=model.name,
        version=version.number,
        weights_digest=version.weights_digest,
        assignment=assignment.id,
        package=offer,
        held=assignment.held,
    )
