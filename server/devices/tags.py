"""Tags: words that operators put on devices, to filter by."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Session

from server.db import BATCH_ROWS, writing
from server.devices.groups import rematch
from server.devices.policy import settle
from server.filters import devices_where
from server.history.events import record
from server.tables import Device, DeviceTag

#: Letters, digits and a few signs: a tag stands in filters and addresses without quotes.
TAG = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"


@dataclass(frozen=True)
class Counts:
    """What tagging many devices came to."""

    matched: int
    changed: int


def change_tags(
    session: Session, ids: Sequence[str], add: Collection[str], remove: Collection[str]
) -> int:
    """Tag these devices, at most BATCH_ROWS; returns how many had not all of it already."""
    touched = {*add, *remove}
    query = select(DeviceTag).where(DeviceTag.device_id.in_(ids), DeviceTag.tag.in_(touched))
    there = {(row.device_id, row.tag) for row in session.scalars(query)}
    changed = []
    for device_id in ids:
        added = sorted(tag for tag in add if (device_id, tag) not in there)
        removed = sorted(tag for tag in remove if (device_id, tag) in there)
        if added or removed:
            changed.append(device_id)
            told = {"added": added, "removed": removed}
            record(session, "device.tags_changed", told, device_id=device_id)
            session.add_all(DeviceTag(device_id=device_id, tag=tag) for tag in added)
    gone = DeviceTag.device_id.in_(changed) & DeviceTag.tag.in_(remove)
    session.execute(delete(DeviceTag).where(gone))
    session.flush()
    settle(session, changed)
    return len(changed)


def tag_matching(
    engine: Engine, text: str, add: Collection[str], remove: Collection[str]
) -> Counts:
    """Tag all devices that match a filter, in batches; what an interruption leaves can be repeated.

    Raises BadFilter.
    """
    matched, changed, after = 0, 0, ""
    while True:
        with writing(engine) as session:
            query = select(Device.id).where(devices_where(session, text), Device.id > after)
            ids = list(session.scalars(query.order_by(Device.id).limit(BATCH_ROWS)))
            count = change_tags(session, ids, add, remove)
            if count:
                rematch(session)
        matched, changed = matched + len(ids), changed + count
        if len(ids) < BATCH_ROWS:
            return Counts(matched, changed)
        after = ids[-1]
