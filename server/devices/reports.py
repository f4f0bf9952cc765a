"""Takes reports: each counter once, in order, then what it says becomes what the server knows."""

from __future__ import annotations

import hashlib
import hmac

from sqlalchemy.orm import Session

from server.errors import BadDevice
from server.history.events import record
from server.rollouts.deploy import join_newest
from server.rollouts.reports import take_assignment_report
from server.tables import Device, DeviceModel
from shared.wire import Report


def take_report(session: Session, device_id: str, body: bytes, report: Report) -> None:
    """Store what a report says.

    The same counter with the same bytes was taken before, and is answered alike. Raises BadDevice
    `counter_reused`, `unknown_assignment`.
    """
    device = session.get_one(Device, device_id, with_for_update=True)
    digest = hashlib.sha256(body).hexdigest()
    if report.counter <= device.report_counter:
        same = hmac.compare_digest(digest, device.report_digest or "")
        if report.counter == device.report_counter and same:
            return
        raise BadDevice(
            "counter_reused", f"report {report.counter} comes after {device.report_counter}"
        )
    take_assignment_report(session, device_id, report)
    device.report_counter, device.report_digest = report.counter, digest
    if report.capabilities is not None:
        device.capabilities = report.capabilities.model_dump()
    _store_holding(session, device_id, report)
    if report.assignment is None:
        kept = report.model_dump(include={"model", "result", "weights_digest", "health"})
        record(session, "device.reported", kept, device_id=device_id)


def _store_holding(session: Session, device_id: str, report: Report) -> None:
    held = session.get(DeviceModel, (device_id, report.model))
    is_new = held is None
    if held is None:
        held = DeviceModel(device_id=device_id, model_name=report.model)
        session.add(held)
    held.weights_digest, held.slots = report.weights_digest, list(report.slots)
    held.state, held.health = report.state, report.health
    if is_new:  # a model that came to the device after its enrolment
        session.flush()
        join_newest(session, device_id, report.model)
