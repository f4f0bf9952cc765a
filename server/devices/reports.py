"""Takes reports: signed, each counter once, in order; then what it says is what the server knows.

1. The device's key has signed it.
2. A report that was taken before gets the same answer, and nothing more.
3. A counter that is not above the last one, under other bytes: the key is in two devices, or in one
   that was put back to an earlier state. Nothing is taken of it, and the device is held.
4. Only the reports of accepted devices are taken, about models that they are let in for. They are
   kept as they came, with the signature.
"""

from __future__ import annotations

import hashlib
import hmac

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.devices.allowed import require_allowed
from server.devices.policy import settle
from server.devices.signatures import check_signature
from server.devices.standing import flag_cloned, require_accepted
from server.errors import BadDevice
from server.history.events import record
from server.history.runs import note
from server.planner.offers import holding_of
from server.planner.plan import Holding
from server.rollouts.admission import bump
from server.rollouts.deploy import device_changed, join_newest
from server.rollouts.penalty import failures_forgotten
from server.rollouts.reports import take_assignment_report, told_of
from server.rollouts.returning import bring_back
from server.tables import NOT_TOLD, Assignment, Device, DeviceModel, Model, SignedReport, Version
from shared.wire import Report


def take_report(
    session: Session, device_id: str, body: bytes, report: Report, signature: str | None
) -> BadDevice | None:
    """Store what a report says.

    Returned, not raised: the refusal `counter_reused`, which is to be told once what was noted of
    it is stored. Raises BadDevice for all others: `unsigned`, `bad_signature`, `key_unknown`,
    `not_accepted`, `cloned`, `model_not_allowed`, `unknown_assignment`; then nothing is stored.
    """
    device = session.get_one(Device, device_id, with_for_update=True)
    signature = check_signature(device.public_key, "report", device_id, body, signature)  # 1
    digest = hashlib.sha256(body).hexdigest()
    if _was_taken(session, device, digest):  # 2
        return None
    if report.counter <= device.report_counter:  # 3
        told = {"counter": report.counter, "last_counter": device.report_counter}
        flag_cloned(session, device, {**told, "model": report.model})
        text = f"report {report.counter} comes after {device.report_counter}"
        return BadDevice("counter_reused", text)
    require_accepted(device.standing)  # 4
    require_allowed(device, [report.model])
    kept = _keep(session, device, report, body, signature)
    _take(session, device, report, kept.id)
    device.report_counter, device.report_digest = report.counter, digest
    return None


def _was_taken(session: Session, device: Device, digest: str) -> bool:
    if hmac.compare_digest(digest, device.report_digest or ""):
        return True
    same = (SignedReport.device_id == device.id) & (SignedReport.digest == digest)
    return session.scalar(select(SignedReport.id).where(same).limit(1)) is not None


def _keep(
    session: Session, device: Device, report: Report, body: bytes, signature: str
) -> SignedReport:
    assert device.public_key is not None
    kept = SignedReport(
        device_id=device.id,
        model_name=report.model,
        counter=report.counter,
        state=report.state,
        weights_digest=report.weights_digest,
        digest=hashlib.sha256(body).hexdigest(),
        body=body.decode(),
        signature=signature,
        public_key=device.public_key,
    )
    session.add(kept)
    session.flush()
    return kept


def _take(session: Session, device: Device, report: Report, report_id: int) -> None:
    """Have what the report says become what the server knows."""
    device_id = device.id
    known = _filtered_by(session, device, report.model)
    planned_from = _planned_from(session, device, report.model)
    failures = device.failures
    take_assignment_report(session, device_id, report)
    if report.capabilities is not None:
        device.capabilities = report.capabilities.model_dump()
    _store_holding(session, device_id, report, report_id)
    # Of an assignment that is not there, a server tells that was restored from an older backup.
    if report.assignment is None or session.get(Assignment, report.assignment) is None:
        _tell(session, device_id, report)
        bring_back(session, device_id, report.model, report.weights_digest)
        if _planned_from(session, device, report.model) != planned_from:
            bump(session, [device_id])  # what was offered may be more than is needed now
    if report.attributes is not None and report.attributes != device.attributes:
        record(session, "device.attributes_changed", report.attributes, device_id=device_id)
        device.attributes = report.attributes
    if _filtered_by(session, device, report.model) != known:
        device_changed(session, device_id)
    if device.failures < failures:
        failures_forgotten(session, device_id)
    settle(session, [device_id])


def _tell(session: Session, device_id: str, report: Report) -> None:
    """Have history keep what was done on a device without an assignment."""
    model_id = session.scalar(select(Model.id).where(Model.name == report.model))
    number = (Version.model_id == model_id) & (Version.number == report.version)
    version_id = session.scalar(select(Version.id).where(number))
    asked = {} if report.version is None else {"version": report.version}
    ids = {"device_id": device_id, "model_id": model_id, "version_id": version_id}
    record(session, "device.reported", {"model": report.model, **asked, **told_of(report)}, **ids)


def _planned_from(session: Session, device: Device, model_name: str) -> Holding | None:
    """What the planner goes by."""
    held = session.get(DeviceModel, (device.id, model_name))
    return None if held is None else holding_of(device, held)


def _filtered_by(session: Session, device: Device, model_name: str) -> tuple[object, ...]:
    """What filters may ask for, of all that a report can change."""
    held = session.get(DeviceModel, (device.id, model_name))
    of_model = (held.weights_digest, held.state, held.health) if held else None
    return device.capabilities, device.attributes, device.failures, of_model


def _store_holding(session: Session, device_id: str, report: Report, report_id: int) -> None:
    held = session.get(DeviceModel, (device_id, report.model))
    is_new = held is None
    if held is None:
        held = DeviceModel(device_id=device_id, model_name=report.model)
        session.add(held)
    held.weights_digest, held.slots = report.weights_digest, list(report.slots)
    if held.state == NOT_TOLD:
        held.state = report.state
    if report.state != "idle":  # else it is about no update, and judged nothing
        held.state, held.health = report.state, report.health
    note(session, device_id, report.model, report.weights_digest, report_id=report_id)
    if is_new:  # a model that came to the device after its enrolment
        session.flush()
        join_newest(session, device_id, report.model)
