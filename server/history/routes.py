"""GET /api/v1/events: what happened, newest first or as it came."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Select, select

from server.api.context import EngineDep
from server.api.paging import Page, SliceDep, page_of
from server.api.problems import answers
from server.auth import Operator
from server.db import reading
from server.tables import Event, Model

router = APIRouter(prefix="/api/v1/events", tags=["history"], dependencies=[Operator])


class EventOut(BaseModel):
    """Something that happened. The ids name what it is about."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "id": 41,
                    "at": "2026-03-01T10:15:00Z",
                    "kind": "assignment.committed",
                    "model_id": 1,
                    "version_id": 2,
                    "package_id": 1,
                    "refinement_id": None,
                    "device_id": "0b9e1c9e-5b0c-4a55-9a0e-6a8e7f3f1c11",
                    "rollout_id": 2,
                    "assignment_id": 3,
                    "data": {"seconds": 1.4, "health": "unverified"},
                }
            ]
        },
    )

    id: int
    at: datetime
    kind: str
    model_id: int | None
    version_id: int | None
    package_id: int | None
    refinement_id: int | None
    device_id: str | None
    rollout_id: int | None
    assignment_id: int | None
    data: dict[str, Any]


@dataclass(frozen=True)
class Filters:
    """Which events a request asks for."""

    kind: Annotated[str | None, Query(description="A kind, or its first part.")] = None
    model: Annotated[str | None, Query(description="Name of a model.")] = None
    version_id: int | None = None
    refinement_id: int | None = None
    rollout_id: int | None = None
    device_id: str | None = None
    order: Annotated[Literal["newest", "oldest"], Query(description="What comes first.")] = "newest"


FiltersDep = Annotated[Filters, Depends()]


def _matching(wanted: Filters) -> Select[Event]:
    query = select(Event)
    if wanted.kind is not None:
        inside = Event.kind.startswith(f"{wanted.kind}.", autoescape=True)
        query = query.where((Event.kind == wanted.kind) | inside)
    if wanted.model is not None:
        ids = select(Model.id).where(Model.name == wanted.model).scalar_subquery()
        query = query.where(Event.model_id == ids)
    for name in ("version_id", "refinement_id", "rollout_id", "device_id"):
        value = getattr(wanted, name)
        if value is not None:
            query = query.where(getattr(Event, name) == value)
    return query


@router.get("", summary="List events", responses=answers("request.bad_cursor", "request.invalid"))
def list_events(engine: EngineDep, part: SliceDep, wanted: FiltersDep) -> Page[EventOut]:
    """Events by the things they are about; all filters given must match."""
    newest = wanted.order == "newest"
    with reading(engine) as session:
        rows, after = page_of(session, _matching(wanted), Event.id, part, newest)
        return Page(items=[EventOut.model_validate(row) for row in rows], next=after)
