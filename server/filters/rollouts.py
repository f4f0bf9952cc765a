"""The fields by which rollouts can be filtered."""

from __future__ import annotations

from sqlalchemy import case, select
from sqlalchemy.orm import Session

from server.filters.grammar import parse
from server.filters.kinds import Condition, Predicate, Text, Time, Truth, Whole
from server.filters.sql import Field, Subject, column, values, where
from server.tables import Model, Rollout, Version


def rollouts_where(session: Session, text: str) -> Condition:  # noqa: ARG001 - one form for all
    """The condition on Rollout that a filter stands for. Raises BadFilter."""
    return where(SUBJECT, parse(text))


def _model() -> Field:
    def some(predicate: Predicate) -> Condition:
        return Rollout.model_id.in_(select(Model.id).where(predicate(Model.name)))

    return values(Text(), some)


def _version() -> Field:
    def some(predicate: Predicate) -> Condition:
        return Rollout.version_id.in_(select(Version.id).where(predicate(Version.number)))

    return values(Whole(), some)


SUBJECT = Subject(
    {
        "id": column(Whole(), Rollout.id),
        "model": _model(),
        "version": _version(),
        "state": column(Text(), Rollout.state),
        "rollback": column(Truth(), case((Rollout.rollback, "true"), else_="false")),
        "created": column(Time(), Rollout.created_at),
        "finished": column(Time(), Rollout.finished_at),
    }
)
