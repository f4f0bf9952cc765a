"""A device becomes known: it shows an enrolment token, and a key of its own that signs the request.

1. The key has signed the request: whoever asks holds it.
2. The token is one of this server's.
3. A key that is known is the same device, once more: it gets another token of its own. Where the
   answer to its last enrolment was lost, its enrolment token need not be good for another use.
4. A key that a device had before, or one that was decommissioned, is worth nothing.
5. A token that an operator made for one device gives that device the new key.
6. Else it is a new device: accepted at once where the token says so, or where it is expected.
7. It claims no model but those that it is let in for, by its token and by what it is expected as.
   An operator may let it in for others later; enrolling once more changes nothing of that.
8. What it says of itself counts until its first report. An enrolment has no counter: somebody might
   play an old one again. So a device that has reported is asked to do so once more.
"""

from __future__ import annotations

import uuid

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from server.auth import new_token, token_hash
from server.devices.allowed import require_allowed, within_all
from server.devices.expected import take_expected
from server.devices.own_tokens import Issuer, has_come
from server.devices.policy import settle
from server.devices.presence import Presence
from server.devices.signatures import check_signature
from server.devices.standing import forget_counters, let_in, require_in_service
from server.devices.tokens import Grant, find_grant
from server.errors import BadDevice
from server.history.events import record
from server.history.runs import note
from server.rollouts.deploy import join_newest
from server.rollouts.draw import lot_of
from server.settings import Settings
from server.tables import NOT_TOLD, Device, DeviceModel, DeviceTag, RetiredKey, now
from shared.wire import Enrolled, Enrolment


def enrol(
    session: Session,
    settings: Settings,
    presence: Presence,
    enrolment: Enrolment,
    body: bytes,
    signature: str | None,
) -> Enrolled:
    """Add the device, or know it again; `roots` is left to the caller. Raises BadDevice."""
    check_signature(enrolment.key, "enrol", "", body, signature)  # 1
    assert enrolment.key is not None
    grant = find_grant(session, settings, enrolment.token)  # 2
    query = select(Device).where(Device.public_key == enrolment.key)
    device = session.scalar(query.with_for_update())
    if device is not None:  # 3
        _enrol_again(session, device, grant, presence)
    elif session.get(RetiredKey, enrolment.key) is not None:  # 4
        raise BadDevice("key_retired", "the device has another key now")
    elif grant.device_id is not None:  # 5
        device = _give_key(session, grant, enrolment.key)
    else:
        device = _add(session, grant, enrolment)  # 6
    require_allowed(device, enrolment.models)  # 7
    device.enrolment_token_id = grant.token_id
    device.renewal_counter = 0  # the device counts the renewals of one identity
    token = Issuer(settings).issue(device)
    device.last_seen_at = device.token_issued_at
    session.flush()
    if device.report_counter:  # 8
        _ask(session, device)
    else:
        device.capabilities = enrolment.capabilities.model_dump()
        device.attributes = enrolment.attributes
        _hold(session, device, enrolment)
    settle(session, [device.id])
    return Enrolled(
        device_id=device.id,
        token=token,
        pending=device.standing == "pending",
        counter=device.report_counter,
    )


def _enrol_again(session: Session, device: Device, grant: Grant, presence: Presence) -> None:
    """Let a device that is known by its key come once more."""
    require_in_service(device)
    if grant.device_id not in (None, device.id):
        raise BadDevice("key_taken", "the key is that of another device")
    if grant.token_id == device.enrolment_token_id and not has_come(device, presence):
        return
    grant.use(now())
    told = {"token": grant.name, "key": device.public_key, "new_key": False}
    record(session, "device.reenrolled", told, device_id=device.id)
    if grant.device_id is not None or (grant.accepts and device.standing == "pending"):
        if device.standing == "cloned":
            forget_counters(device)
        let_in(session, device)


def _give_key(session: Session, grant: Grant, key: str) -> Device:
    """Give the device that the token is for its new key; the old one is worth nothing from now."""
    device = session.get_one(Device, grant.device_id, with_for_update=True)
    grant.use(now())
    require_in_service(device)
    if device.public_key is not None:
        session.add(RetiredKey(public_key=device.public_key, device_id=device.id))
    told = {"token": grant.name, "key": key, "old_key": device.public_key, "new_key": True}
    record(session, "device.reenrolled", told, device_id=device.id)
    device.public_key = key
    forget_counters(device)
    let_in(session, device)
    return device


def _add(session: Session, grant: Grant, enrolment: Enrolment) -> Device:
    grant.use(now())
    assert enrolment.key is not None
    expected = take_expected(session, enrolment.name, enrolment.key)
    is_accepted = grant.accepts or expected is not None
    device_id = str(uuid.uuid4())
    device = Device(
        id=device_id,
        name=enrolment.name,
        standing="accepted" if is_accepted else "pending",
        public_key=enrolment.key,
        allowed_models=within_all(grant.models, expected.models if expected else None),
        token_hash=token_hash(new_token()),  # until one is issued
        generation=1,
        report_counter=0,
        renewal_counter=0,
        lot=lot_of(device_id),
    )
    tags = {*grant.tags, *(expected.tags if expected else ())}
    session.add(device)
    device.tags = [DeviceTag(tag=tag) for tag in sorted(tags)]
    if expected is not None:
        session.flush()
        expected.device_id = device_id
    told = {
        "name": device.name,
        "models": sorted(enrolment.models),
        "allowed_models": device.allowed_models,
        "token": grant.name,
        "key": device.public_key,
        "standing": device.standing,
    }
    record(session, "device.enrolled", told, device_id=device_id)
    return device


def _ask(session: Session, device: Device) -> None:
    """Have the device report what it is and holds."""
    mine = update(DeviceModel).where(DeviceModel.device_id == device.id)
    session.execute(mine.values(state=NOT_TOLD))
    device.generation += 1


def _hold(session: Session, device: Device, enrolment: Enrolment) -> None:
    """Store what it holds, and let an accepted device have its place in rollouts."""
    for name, held in enrolment.models.items():
        row = session.get(DeviceModel, (device.id, name))
        if row is None:
            row = DeviceModel(device_id=device.id, model_name=name)
            session.add(row)
        row.weights_digest, row.slots = held.current, list(held.slots)
    session.flush()
    for name, held in enrolment.models.items():
        note(session, device.id, name, held.current)
    if device.standing == "accepted":
        for name in enrolment.models:
            join_newest(session, device.id, name)
