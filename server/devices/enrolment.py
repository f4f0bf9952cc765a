"""A device becomes known: it shows the enrolment token and gets an id and a token of its own."""

from __future__ import annotations

import uuid

from sqlalchemy.orm import Session

from server.auth import new_token, same_secret, token_hash
from server.devices.policy import settle
from server.errors import BadDevice
from server.history.events import record
from server.history.runs import note
from server.rollouts.deploy import join_newest
from server.rollouts.draw import lot_of
from server.settings import Settings
from server.tables import Device, DeviceModel, now
from shared.wire import Enrolled, Enrolment


def check_token(settings: Settings, token: str) -> None:
    """Raise BadDevice `enrolment_closed` or `bad_enrolment_token`."""
    if settings.enrolment_token is None:
        raise BadDevice("enrolment_closed", "this server has no enrolment token set")
    if not same_secret(token, settings.enrolment_token.get_secret_value()):
        raise BadDevice("bad_enrolment_token", "the enrolment token is not this server's")


def enrol(session: Session, enrolment: Enrolment) -> Enrolled:
    """Add the device, and let it join the rollouts of its models."""
    token, device_id = new_token(), str(uuid.uuid4())
    device = Device(
        id=device_id,
        name=enrolment.name,
        token_hash=token_hash(token),
        generation=1,
        capabilities=enrolment.capabilities.model_dump(),
        attributes=enrolment.attributes,
        lot=lot_of(device_id),
        last_seen_at=now(),
    )
    session.add(device)
    for name, held in enrolment.models.items():
        session.add(
            DeviceModel(
                device_id=device.id,
                model_name=name,
                weights_digest=held.current,
                slots=list(held.slots),
            )
        )
    session.flush()
    for name, held in enrolment.models.items():
        note(session, device.id, name, held.current)
    settle(session, [device.id])
    told = {"name": device.name, "models": sorted(enrolment.models)}
    record(session, "device.enrolled", told, device_id=device.id)
    for name in enrolment.models:
        join_newest(session, device.id, name)
    return Enrolled(device_id=device.id, token=token)
