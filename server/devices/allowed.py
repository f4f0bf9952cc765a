"""Which models a device may say that it runs.

Devices name their models themselves, and what a device names it may read, and be led to. So whoever
lets a device in may bind it: by its enrolment token, by what it is expected as, or later on. Null:
any model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from sqlalchemy import update
from sqlalchemy.orm import Session

from server.devices.standing import forget_models, models_of, require_in_service
from server.errors import BadDevice
from server.history.events import record
from server.rollouts.evaluation import settle
from server.tables import NOT_TOLD, Device, DeviceModel

#: Names of models; null: any.
Bounds: TypeAlias = Sequence[str] | None


def require_allowed(device: Device, names: Iterable[str]) -> None:
    """Raise BadDevice `model_not_allowed` for a model that the device is not let in for."""
    beyond = sorted(name for name in names if not _is_within(name, device.allowed_models))
    if beyond:
        text = f"this device was not let in for the model {', '.join(beyond)}"
        raise BadDevice("model_not_allowed", text)


def within_all(*bounds: Bounds) -> list[str] | None:
    """What is within each of several bounds."""
    sets = [set(each) for each in bounds if each is not None]
    return sorted(set.intersection(*sets)) if sets else None


def allow(session: Session, device: Device, bounds: list[str] | None) -> None:
    """Bind a device to other models than before.

    What it holds of those that are not among them counts no longer. Where it gets a model back, it
    is asked to say what it holds: what it has said of it was refused. Raises BadDevice
    `decommissioned`.
    """
    require_in_service(device)
    before = device.allowed_models
    if bounds == before:
        return
    device.allowed_models = bounds
    told = {"allowed_models": bounds, "before": {"allowed_models": before}}
    record(session, "device.changed", told, device_id=device.id)
    gone = [name for name in models_of(session, device.id) if not _is_within(name, bounds)]
    rollouts = forget_models(session, device, gone, "model_not_allowed")
    if before is not None and (bounds is None or set(bounds) - set(before)):
        mine = update(DeviceModel).where(DeviceModel.device_id == device.id)
        session.execute(mine.values(state=NOT_TOLD))
    device.generation += 1
    settle(session, rollouts)


def _is_within(name: str, bounds: Bounds) -> bool:
    return bounds is None or name in bounds
