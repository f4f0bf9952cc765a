"""What a device should run now: the answer to a poll that is not idle (see `polls.py`).

1. each open assignment is planned from what the device holds
2. where the outcome differs from the one told before, it is stored; the first offer is dated, and
   another outcome than before makes a new generation, hence a new ETag
3. in the transaction in which something is offered, its packages are listed in the metadata, so
   that whoever hears of the offer can have both
4. packages that are missing are asked for, after the transaction

A held assignment is planned anew at every poll: whatever it waits for (a published package, a
larger budget) needs to notify nobody. Every offer is an event with its way and its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, Row, select
from sqlalchemy.orm import Session

from server.db import reading, writing
from server.devices.standing import HELD
from server.history.events import ids_of, record
from server.planner.offers import Planned, Planning
from server.planner.paths import Path, offered
from server.planner.plan import Build, Download, Hold, Wanted, bytes_of, way_of
from server.rollouts.offering import OWN_HOLDS, hold_reason, number_in_use, state_offered
from server.tables import (
    NOT_TOLD,
    Assignment,
    Device,
    DeviceModel,
    Json,
    Model,
    Package,
    Rollout,
    Version,
    now,
)
from server.trust.repository import Trust
from shared.wire import Desired, DesiredModel


@dataclass(frozen=True)
class Answer:
    """What a poll gets. `wanted`: packages that must be built; `offered`: ids of those that are."""

    generation: int
    desired: Desired
    wanted: list[Wanted] = field(default_factory=list)
    offered: list[int] = field(default_factory=list)


def answer_poll(engine: Engine, device_id: str, planning: Planning, trust: Trust) -> Answer:
    """The answer to a poll of a device for which there is news, or of which something is held.

    Most such polls change nothing: a whole fleet may be held, until a window opens. So it is
    planned without writing first, and again in a write transaction where there is something new.
    Raises BadTrust where what is offered cannot be signed: then nothing is.
    """
    with reading(engine) as session, session.no_autoflush:
        answer = _plan_all(session, device_id, planning)
        is_new = session.new or any(map(session.is_modified, session.dirty))
        if not is_new and trust.is_listed(session, _packages(session, answer)):
            return answer
    with writing(engine) as session:
        answer = _plan_all(session, device_id, planning)
        session.flush()
        trust.ensure_listed(session, _packages(session, answer))  # 3
        return answer


def _packages(session: Session, answer: Answer) -> list[Package]:
    return [session.get_one(Package, package_id) for package_id in answer.offered]


def _plan_all(session: Session, device_id: str, planning: Planning) -> Answer:
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
    wanted: list[Wanted] = []
    offers: list[int] = []
    for row in session.execute(query):
        assignment, rollout, version, model, held = row
        assignment.reached_at = assignment.reached_at or now()
        number = number_in_use(session, model.id, held.weights_digest)
        own = HELD.get(device.standing) or hold_reason(rollout, assignment, number, version, now())
        planned = (
            Planned(Hold(own))
            if own is not None
            else planning.plan_for(session, device, held, version, assignment)  # 1
        )
        path = _store(session, device, row, planned)  # 2
        if isinstance(planned.plan, Build):
            wanted.append(planned.plan.wanted)
        offers += [offer.package_id for offer in path]
        models.append(_describe(row, path, is_unknown=planned.unknown is not None))
    held_as_such = HELD.get(device.standing)
    must_tell = held_as_such is None and _has_not_told(session, device_id)
    desired = Desired(models=models, report=must_tell, held=held_as_such)
    return Answer(device.generation, desired, wanted, offers)


def _has_not_told(session: Session, device_id: str) -> bool:
    """Whether the server has yet to hear what the device holds: it was restored, or was not to."""
    mine = select(DeviceModel.state).where(DeviceModel.device_id == device_id)
    states = set(session.scalars(mine))
    return not states or NOT_TOLD in states


def _store(
    session: Session,
    device: Device,
    row: Row[Assignment, Rollout, Version, Model, DeviceModel],
    planned: Planned,
) -> Path:
    """Keep the plan's outcome on the assignment, if it is another one; returns what is offered."""
    found, unknown = planned.plan, planned.unknown
    about = {"unknown_weights": unknown} if unknown else {}
    if isinstance(found, Build | Hold):
        detail = {**(found.detail or {}), **about}
        _hold(session, device, row[0], row[1], found.reason, detail)
        return ()
    path = found.packages if isinstance(found, Download) else ()
    _offer(session, device, row[0], row[1], path, about)
    return path


def _hold(
    session: Session,
    device: Device,
    assignment: Assignment,
    rollout: Rollout,
    reason: str,
    detail: Json,
) -> None:
    """Tell why nothing is offered.

    Packages that were offered before stay noted: the device may hold a part of them, and goes on
    from there where they are offered again.
    """
    if (assignment.held, assignment.held_detail or {}) == (reason, detail):
        return
    if assignment.held != reason:
        _tell_anew(device, assignment)
    if assignment.held in OWN_HOLDS and reason not in OWN_HOLDS:
        assignment.admitted_at = now()  # the deadline did not run while the rollout held it
    assignment.held, assignment.held_detail = reason, detail or None
    told = {"reason": reason, **detail}
    record(session, "assignment.held", told, **ids_of(assignment, rollout))


def _offer(
    session: Session,
    device: Device,
    assignment: Assignment,
    rollout: Rollout,
    path: Path,
    about: Json,
) -> None:
    """Offer the packages of `path`, one or a chain; none: the device only switches."""
    ids = [offer.package_id for offer in path]
    chain, last = (ids if len(ids) > 1 else None), (ids[-1] if ids else None)
    is_told = assignment.held is None and assignment.offered_at is not None
    if is_told and (assignment.package_id, assignment.chain) == (last, chain):
        return
    _tell_anew(device, assignment)
    assignment.held = assignment.held_detail = None
    assignment.package_id, assignment.chain, assignment.size_bytes = last, chain, bytes_of(path)
    assignment.state = state_offered(assignment.state)
    assignment.offered_at = assignment.offered_at or now()
    told: dict[str, Any] = {"way": way_of(path), "bytes": bytes_of(path), "packages": ids, **about}
    record(session, "assignment.offered", told, **ids_of(assignment, rollout))


def _tell_anew(device: Device, assignment: Assignment) -> None:
    """Make a new generation, where the device has heard of the assignment before."""
    if assignment.held is not None or assignment.offered_at is not None:
        device.generation += 1


def _describe(
    row: Row[Assignment, Rollout, Version, Model, DeviceModel], path: Path, *, is_unknown: bool
) -> DesiredModel:
    """`is_unknown`: the weights in use are no version that the server knows."""
    assignment, rollout, version, model, _ = row
    offers = [offered(offer) for offer in path]
    return DesiredModel(
        model=model.name,
        version=version.number,
        weights_digest=version.weights_digest,
        assignment=assignment.id,
        attempt=assignment.attempts,
        package=offers[0] if len(offers) == 1 else None,
        chain=offers if len(offers) > 1 else None,
        held=assignment.held,
        # The device may know the number of weights that a restored server does not know any more.
        rollback=rollout.rollback or is_unknown,
    )
