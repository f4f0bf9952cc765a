"""Events with the names of what they are about, read for all events of an answer at once.

A row of the history holds ids alone: to write one must cost no more than to write.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.history.schemas import EventOut
from server.tables import Event, Model, Version

_COLUMNS = EventOut.model_fields.keys() - {"model", "version"}


def describe(session: Session, events: Sequence[Event]) -> list[EventOut]:
    """The events as the API shows them; two queries, however many they are."""
    models = {event.model_id for event in events} - {None}
    versions = {event.version_id for event in events} - {None}
    names = dict(session.execute(select(Model.id, Model.name).where(Model.id.in_(models))).all())
    numbered = select(Version.id, Version.number).where(Version.id.in_(versions))
    numbers = dict(session.execute(numbered).all())
    return [
        EventOut(
            **{name: getattr(event, name) for name in _COLUMNS},
            model=names.get(event.model_id or 0),
            version=numbers.get(event.version_id or 0),
        )
        for event in events
    ]
