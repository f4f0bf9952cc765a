"""Who comes out of the penalty box: after the limit was changed, or failures were forgotten."""

from __future__ import annotations

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from server import logs
from server.db import writing
from server.rollouts import box
from server.rollouts.deploy import join_newest
from server.rollouts.membership import may_take
from server.rollouts.steps import mark_due
from server.tables import Device, DeviceModel, Model, now


def set_up(engine: Engine, failures: int) -> None:
    """Set the limit; it may be another than before, so rollouts look again at whom they take."""
    box.set_limit(engine, failures)
    with writing(engine) as session:
        failing = select(Device.id).where(Device.failures > 0).limit(1)
        if session.scalar(failing) is None:
            return
        for model_id in list(session.scalars(select(Model.id))):
            mark_due(session, may_take(session, model_id), now())


@logs.beyond_scope()
def failures_forgotten(session: Session, device_id: str) -> None:
    """Call where a device's failures were set back: its rollouts may take it now."""
    session.flush()
    if not box.limit(session):
        return
    names = select(DeviceModel.model_name).where(DeviceModel.device_id == device_id)
    for name in list(session.scalars(names)):
        join_newest(session, device_id, name)
