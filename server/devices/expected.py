"""Devices that are expected: they need not wait for an operator when they come.

By their key, which a factory knows, or by their name, which whoever has a token can claim: so one
stands for one device only, and is gone with it.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.errors import BadDevice
from server.history.events import record
from server.tables import Device, Preauthorisation


def preauthorise(session: Session, row: Preauthorisation) -> None:
    """Expect a device. Raises BadDevice `preauthorised`, `key_taken`."""
    expected = Preauthorisation.device_id.is_(None)
    same = (Preauthorisation.name == row.name) if row.public_key is None else (
        Preauthorisation.public_key == row.public_key
    )  # fmt: skip
    if session.scalar(select(Preauthorisation.id).where(expected, same)) is not None:
        raise BadDevice("preauthorised", "such a device is expected already")
    if row.public_key and session.scalar(
        select(Device.id).where(Device.public_key == row.public_key)
    ):
        raise BadDevice("key_taken", "a device with this key has enrolled already")
    session.add(row)
    session.flush()
    told = {"name": row.name, "key": row.public_key, "tags": row.tags, "models": row.models}
    record(session, "device.preauthorised", told)


def take_expected(session: Session, name: str, public_key: str) -> Preauthorisation | None:
    """The best that fits a device that comes now, by its key rather than its name; locked."""
    fits = (Preauthorisation.public_key == public_key) | (
        Preauthorisation.public_key.is_(None) & (Preauthorisation.name == name)
    )
    query = select(Preauthorisation).where(Preauthorisation.device_id.is_(None), fits)
    found = session.scalars(query.order_by(Preauthorisation.id).with_for_update())
    suiting = [row for row in found if row.name in (None, name)]
    return min(suiting, key=lambda row: row.public_key is None, default=None)


def withdraw(session: Session, row_id: int) -> None:
    """Expect it no longer. Raises BadDevice `preauthorisation_not_found`."""
    row = session.get(Preauthorisation, row_id)
    if row is None or row.device_id is not None:
        raise BadDevice("preauthorisation_not_found", f"no device is expected as {row_id}")
    session.delete(row)
    told = {"name": row.name, "key": row.public_key}
    record(session, "device.preauthorisation_withdrawn", told)
