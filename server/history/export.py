"""The whole history, or what a filter leaves of it, as a file: oldest first, in bounded memory.

Each batch is read in a transaction of its own, so that a slow reader holds nothing up; the order of
events makes that safe: nothing ever appears before what was read.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from sqlalchemy import ColumnElement, Engine, select
from sqlalchemy.orm import Session

from server.db import reading
from server.history.naming import describe
from server.history.order import KEY, Position, after
from server.history.schemas import EventOut
from server.tables import Event

BATCH = 500

#: The columns of a CSV file, in this order; later versions only add at the end.
COLUMNS: Final = (
    "id",
    "at",
    "kind",
    "model_id",
    "version_id",
    "package_id",
    "refinement_id",
    "device_id",
    "rollout_id",
    "assignment_id",
    "data",
    "model",
    "version",
    "actor",
    "address",
)

#: A spreadsheet takes a cell that begins with one of these for a formula.
FORMULA_SIGNS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")

Conditions = Callable[[Session], list[ColumnElement[bool]]]


def batches(engine: Engine, conditions: Conditions) -> Iterator[list[EventOut]]:
    """Every event that fulfils the conditions, oldest first."""
    position = Position()
    while True:
        with reading(engine) as session:
            query = select(Event).where(*conditions(session), after(position)).order_by(*KEY)
            rows = list(session.scalars(query.limit(BATCH)))
            found = describe(session, rows)
        if rows:
            yield found
            position = Position(rows[-1].transaction, rows[-1].id)
        if len(rows) < BATCH:
            return


def as_json_lines(parts: Iterable[list[EventOut]]) -> Iterator[str]:
    """One JSON object a line."""
    for events in parts:
        yield "".join(f"{event.model_dump_json()}\n" for event in events)


def as_csv(parts: Iterable[list[EventOut]]) -> Iterator[str]:
    """A line of names, then one an event; `data` is JSON in one cell."""
    yield _csv_lines([COLUMNS])
    for events in parts:
        yield _csv_lines(_row(event) for event in events)


def _row(event: EventOut) -> list[str]:
    told = event.model_dump(mode="json")
    told["data"] = json.dumps(told["data"], ensure_ascii=False)
    return [_cell(told[name]) for name in COLUMNS]


def _cell(value: Any) -> str:
    """Text that no spreadsheet runs."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA_SIGNS) else text


def _csv_lines(rows: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
