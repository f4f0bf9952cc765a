"""Whether a device is offered anything.

    pending -> accepted -> decommissioned
                 <-> cloned

pending: it waits for an operator. cloned: two have its key, as far as one can tell from its
counters; neither is offered anything until an operator has said which is right. decommissioned: its
key and its token are worth nothing, and it holds nothing that counts; its history stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from server.auth import new_token, token_hash
from server.devices.tokens import revoke_tokens_of
from server.errors import BadDevice
from server.history.events import record, record_each
from server.history.runs import note
from server.rollouts.deploy import join_newest
from server.rollouts.evaluation import settle
from server.tables import Assignment, Device, DeviceModel, Model, now

#: Standing -> why such a device is offered nothing: the code of a refusal, and a reason to hold.
HELD: Final = {"pending": "not_accepted", "cloned": "cloned", "decommissioned": "decommissioned"}
_TEXT: Final = {
    "not_accepted": "no operator has accepted the device yet",
    "cloned": "another device has the same key, or this one was put back to an earlier state",
    "decommissioned": "the device was decommissioned",
}


def require_accepted(standing: str) -> None:
    """Raise BadDevice `not_accepted`, `cloned` or `decommissioned` for any other standing."""
    if standing in HELD:
        raise BadDevice(HELD[standing], _TEXT[HELD[standing]])


def require_in_service(device: Device) -> None:
    """Raise BadDevice `decommissioned`."""
    if device.standing == "decommissioned":
        require_accepted(device.standing)


def accept(session: Session, device: Device) -> None:
    """Offer it what the others are offered; of one that is accepted already, nothing changes.

    Of one that was held as cloned the operator says: there is one such device. Its counters begin
    anew, as it may have been put back to an earlier state; what was reported is not taken twice.
    Raises BadDevice `decommissioned`.
    """
    require_in_service(device)
    if device.standing == "accepted":
        return
    if device.standing == "cloned":
        forget_counters(device)
    record(session, "device.accepted", {"was": device.standing}, device_id=device.id)
    let_in(session, device)


def let_in(session: Session, device: Device) -> None:
    """Let the device have its place in the rollouts of its models."""
    device.standing = "accepted"
    device.generation += 1
    session.flush()
    for name in models_of(session, device.id):
        join_newest(session, device.id, name)


def forget_counters(device: Device) -> None:
    """Take any counter for the next one."""
    device.report_counter, device.report_digest, device.renewal_counter = 0, None, 0


def flag_cloned(session: Session, device: Device, told: dict[str, Any]) -> None:
    """Hold the device: its key has signed what one device alone would not have."""
    if device.standing in ("accepted", "pending"):
        device.standing = "cloned"
        device.generation += 1
        record(session, "device.cloned", told, device_id=device.id)


def decommission(session: Session, device: Device) -> None:
    """Take it out of service for good. Again: nothing happens."""
    if device.standing == "decommissioned":
        return
    device.standing = "decommissioned"
    device.token_hash, device.token_expires_at = token_hash(new_token()), now()
    device.generation += 1
    revoke_tokens_of(session, device.id)
    record(session, "device.decommissioned", {"key": device.public_key}, device_id=device.id)
    settle(session, forget_models(session, device, models_of(session, device.id), "decommissioned"))


def models_of(session: Session, device_id: str) -> list[str]:
    """The models that a device holds something of, by name."""
    query = select(DeviceModel.model_name).where(DeviceModel.device_id == device_id)
    return list(session.scalars(query.order_by(DeviceModel.model_name)))


def forget_models(session: Session, device: Device, names: Sequence[str], reason: str) -> set[int]:
    """Have a device hold nothing that counts of some models; its history stays.

    Returns the rollouts in which it was on its way, which are to be settled.
    """
    for name in names:
        note(session, device.id, name, None)
    rollouts = _end_assignments(session, device.id, names, reason)
    held = (DeviceModel.device_id == device.id) & DeviceModel.model_name.in_(names)
    session.execute(delete(DeviceModel).where(held))
    session.expire(device, ["models"])
    return rollouts


def _end_assignments(
    session: Session, device_id: str, names: Sequence[str], reason: str
) -> set[int]:
    """Abort what is open; returns the rollouts that it was part of."""
    models = select(Model.id).where(Model.name.in_(names))
    those = (
        (Assignment.device_id == device_id)
        & Assignment.model_id.in_(models)
        & Assignment.finished_at.is_(None)
    )
    rollouts = set(session.scalars(select(Assignment.rollout_id).where(those)))
    record_each(session, "assignment.aborted", those, {"reason": reason})
    session.execute(
        update(Assignment)
        .where(those)
        .values(state="aborted", finished_at=now(), held=None, held_detail=None)
        .execution_options(synchronize_session=False)
    )
    return rollouts
