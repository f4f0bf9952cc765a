"""What happened: of everything, of a device, of a model; as pages, as a stream, as a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Path, Query
from fastapi.responses import StreamingResponse
from sqlalchemy import ColumnElement, Engine, select, true
from sqlalchemy.orm import Session
from sse_starlette import EventSourceResponse

from server.api.context import EngineDep
from server.api.paging import Page, Slice, SliceDep, page_of
from server.api.problems import answers
from server.api.streams import follow
from server.db import reading
from server.errors import BadDevice
from server.history.export import as_csv, as_json_lines, batches
from server.history.follow import Follower, stream
from server.history.naming import describe
from server.history.order import KEY, Position, newest, read_cursor, settled
from server.history.schemas import EventOut
from server.history.selection import (
    NO_NUL,
    OrderQuery,
    Wanted,
    WantedDep,
    WantedOfAll,
    WantedOfAllDep,
    of_model,
)
from server.tables import Device, Event

router = APIRouter(prefix="/api/v1", tags=["history"])

LIST = answers(
    "request.bad_cursor",
    "filter.syntax",
    "filter.unknown_field",
    "filter.bad_value",
    "rollout.not_found",
)
LIST_OF_ALL = {**LIST, **answers("model.not_found")}

FILE = {
    "jsonl": ("application/x-ndjson", as_json_lines),
    "csv": ("text/csv; charset=utf-8", as_csv),
}


@router.get("/events", summary="List events", responses=LIST_OF_ALL)
def list_events(
    engine: EngineDep, part: SliceDep, wanted: WantedOfAllDep, order: OrderQuery = "newest"
) -> Page[EventOut]:
    """Events by the things they are about; all that is asked for must match."""
    return _page(engine, part, order, wanted)


@router.get(
    "/devices/{device_id}/events",
    summary="List a device's events",
    responses={**LIST, **answers("device.not_found")},
)
def list_device_events(
    device_id: Annotated[str, Path(pattern=NO_NUL, description="Id of the device.")],
    engine: EngineDep,
    part: SliceDep,
    wanted: WantedDep,
    order: OrderQuery = "newest",
) -> Page[EventOut]:
    """What happened to one device, also to one that is not enrolled any more."""
    return _page(engine, part, order, wanted, lambda session: _of_device(session, device_id))


@router.get(
    "/models/{model}/events",
    summary="List a model's events",
    responses={**LIST, **answers("model.not_found")},
)
def list_model_events(
    model: Annotated[str, Path(pattern=NO_NUL, description="Name of the model.")],
    engine: EngineDep,
    part: SliceDep,
    wanted: WantedDep,
    order: OrderQuery = "newest",
) -> Page[EventOut]:
    """What happened to one model, its versions, packages, refinements and rollouts."""
    return _page(engine, part, order, wanted, lambda session: of_model(session, model))


@router.get(
    "/events/export",
    summary="Export events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "All events that match, oldest first.",
            "content": {"application/x-ndjson": {}, "text/csv": {}},
        },
        **LIST_OF_ALL,
    },
)
def export_events(
    engine: EngineDep,
    wanted: WantedOfAllDep,
    format: Annotated[  # noqa: A002 - the API's word
        Literal["jsonl", "csv"], Query(description="JSON Lines, or comma-separated values.")
    ] = "jsonl",
) -> StreamingResponse:
    """A file with a line for each event, in columns that stay, to be read piece by piece.

    In CSV, a cell that a spreadsheet would take for a formula begins with a `'`.
    """
    with reading(engine) as session:
        wanted.conditions(session)  # refused before the answer begins
    media_type, written = FILE[format]
    headers = {"Content-Disposition": f'attachment; filename="events.{format}"'}
    lines = written(batches(engine, wanted.conditions))
    return StreamingResponse(lines, headers=headers, media_type=media_type)


@dataclass(frozen=True)
class Place:
    """Where a follower goes on."""

    cursor: Annotated[
        str | None, Query(max_length=500, description="`id` of the last event that was seen.")
    ] = None
    last_event_id: Annotated[
        str | None, Header(description="The same, as browsers send it when they come again.")
    ] = None

    def position(self, session: Session) -> Position | None:
        """The place in the order, if one was given. Raises BadRequest `bad_cursor`."""
        cursor = self.last_event_id or self.cursor
        return None if cursor is None else read_cursor(session, cursor)


@router.get(
    "/events/follow",
    summary="Follow events",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "Server-sent events `event`, each an event as JSON; `id` is its cursor.",
            "content": {"text/event-stream": {}},
        },
        **LIST_OF_ALL,
        **answers("service.overloaded"),
    },
)
def follow_events(
    engine: EngineDep,
    wanted: WantedOfAllDep,
    place: Annotated[Place, Depends()],
    limit: Annotated[
        int | None, Query(ge=1, lt=1 << 31, description="End after so many; without it, never.")
    ] = None,
) -> EventSourceResponse:
    """Events as they happen: from now on; behind `cursor`; or from `since` on, if that is given."""
    with reading(engine) as session:
        wanted.conditions(session)
        position = place.position(session) or _beginning(session, wanted)
    return follow(stream(Follower(engine, wanted.conditions, position), limit))


def _beginning(session: Session, wanted: WantedOfAll) -> Position:
    return newest(session) if wanted.since is None else Position()


def _page(
    engine: Engine,
    part: Slice,
    order: str,
    wanted: Wanted,
    of_thing: Callable[[Session], ColumnElement[bool]] = lambda _: true(),
) -> Page[EventOut]:
    with reading(engine) as session:
        if part.cursor is not None:
            read_cursor(session, part.cursor)
        conditions = [*wanted.conditions(session), of_thing(session)]
        query = select(Event).where(*conditions, settled())
        rows, after = page_of(session, query, KEY, part, descending=order == "newest")
        return Page(items=describe(session, rows), next=after)


def _of_device(session: Session, device_id: str) -> ColumnElement[bool]:
    """The condition on events of a device. Raises BadDevice `not_found`."""
    wanted = Event.device_id == device_id
    known = select(Device.id).where(Device.id == device_id)
    if session.scalar(known) is None and session.scalar(select(Event.id).where(wanted)) is None:
        raise BadDevice("not_found", f"there is no device {device_id[:64]!r}")
    return wanted
