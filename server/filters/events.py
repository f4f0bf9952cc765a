"""The fields by which the history can be filtered."""

from __future__ import annotations

from sqlalchemy import Text as SqlText
from sqlalchemy import and_, cast, select
from sqlalchemy.orm import Session

from server.filters.grammar import parse
from server.filters.kinds import Condition, Predicate, Text, Time, Whole
from server.filters.sql import Field, Subject, column, values, where
from server.tables import Event, Model, Version


def events_where(session: Session, text: str) -> Condition:  # noqa: ARG001 - one form for all
    """The condition on Event that a filter stands for. Raises BadFilter."""
    return where(SUBJECT, parse(text))


def _model() -> Field:
    def some(predicate: Predicate) -> Condition:
        ids = select(Model.id).where(predicate(Model.name))
        return and_(Event.model_id.is_not(None), Event.model_id.in_(ids))

    return values(Text(), some)


def _version() -> Field:
    def some(predicate: Predicate) -> Condition:
        ids = select(Version.id).where(predicate(Version.number))
        return and_(Event.version_id.is_not(None), Event.version_id.in_(ids))

    return values(Whole(), some)


def _data(path: str) -> Field:
    """Text or a number inside `data`: `data.error.code`."""
    found = Event.data[tuple(path.split("."))].as_string()
    return column(Text(), cast(found, SqlText()))


SUBJECT = Subject(
    {
        "kind": column(Text(), Event.kind),
        "model": _model(),
        "version": _version(),
        "device": column(Text(), Event.device_id),
        "rollout": column(Whole(), Event.rollout_id),
        "assignment": column(Whole(), Event.assignment_id),
        "package": column(Whole(), Event.package_id),
        "refinement": column(Whole(), Event.refinement_id),
        "at": column(Time(), Event.at),
        "actor": column(Text(), Event.actor),
        "address": column(Text(), Event.address),
    },
    {"data": _data},
)
