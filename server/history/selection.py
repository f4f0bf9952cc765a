"""Which events a request asks for: parameters and a filter, all of which must match."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import Depends, Query
from pydantic import AwareDatetime
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from server.errors import BadModel, BadRequest, BadRollout
from server.filters import events_where
from server.history.kinds import of_kind
from server.tables import Event, Model, Rollout

#: What PostgreSQL's text cannot hold.
NO_NUL = r"^[^\x00]*$"

Id = Annotated[int | None, Query(ge=1, lt=1 << 31)]


@dataclass(frozen=True)
class Wanted:
    """Which events of a thing."""

    kind: Annotated[
        str | None,
        Query(max_length=60, pattern=NO_NUL, description="A kind, or its first part: `rollout`."),
    ] = None
    version_id: Id = None
    package_id: Id = None
    refinement_id: Id = None
    rollout_id: Id = None
    assignment_id: Id = None
    since: Annotated[AwareDatetime | None, Query(description="At this moment or later.")] = None
    until: Annotated[AwareDatetime | None, Query(description="Before this moment.")] = None
    filter: Annotated[
        str | None,
        Query(
            description="An RSQL filter over events.",
            examples=["kind==assignment.*;data.result!=committed"],
        ),
    ] = None

    def conditions(self, session: Session) -> list[ColumnElement[bool]]:
        """What an event must fulfil. Raises BadFilter, BadRequest `invalid`, BadRollout."""
        found = [
            getattr(Event, name) == value
            for name in ("version_id", "package_id", "refinement_id", "assignment_id")
            if (value := getattr(self, name)) is not None
        ]
        if self.rollout_id is not None:
            found.append(_of_rollout(session, self.rollout_id))
        if self.kind is not None:
            found.append(of_kind(session, self.kind))
        if self.since is not None:
            found.append(Event.at >= in_utc("since", self.since))
        if self.until is not None:
            found.append(Event.at < in_utc("until", self.until))
        if self.filter is not None:
            found.append(events_where(session, self.filter))
        return found


@dataclass(frozen=True)
class WantedOfAll(Wanted):
    """Which events of all."""

    model: Annotated[str | None, Query(pattern=NO_NUL, description="Name of a model.")] = None
    device_id: Annotated[str | None, Query(pattern=NO_NUL, description="Id of a device.")] = None

    def conditions(self, session: Session) -> list[ColumnElement[bool]]:
        """As above. Raises BadModel `not_found`, too."""
        found = super().conditions(session)
        if self.model is not None:
            found.append(of_model(session, self.model))
        if self.device_id is not None:
            found.append(Event.device_id == self.device_id)
        return found


WantedDep = Annotated[Wanted, Depends()]
WantedOfAllDep = Annotated[WantedOfAll, Depends()]
OrderQuery = Annotated[Literal["newest", "oldest"], Query(description="What comes first.")]


def of_model(session: Session, name: str) -> ColumnElement[bool]:
    """The condition on events of a model. Raises BadModel `not_found`."""
    model_id = session.scalar(select(Model.id).where(Model.name == name))
    if model_id is None:
        raise BadModel("not_found", f"there is no model {name[:100]!r}")
    return Event.model_id == model_id


def _of_rollout(session: Session, rollout_id: int) -> ColumnElement[bool]:
    """The condition on events of a rollout. Raises BadRollout `not_found`."""
    if session.get(Rollout, rollout_id) is None:
        raise BadRollout("not_found", f"there is no rollout {rollout_id}")
    return Event.rollout_id == rollout_id


def in_utc(name: str, moment: datetime) -> datetime:
    """A moment that a parameter gives. Raises BadRequest `invalid`."""
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise BadRequest("invalid", f"query.{name}: the moment is out of range") from error
