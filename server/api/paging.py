"""Lists as `{"items": [...], "next": cursor}`, by keyset: page N costs as much as page 1.

The cursor is opaque to clients; inside it is the last key of the page, which may be of several
columns. A row added meanwhile never makes a page skip or repeat another.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeAlias, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, Select, literal, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from server.errors import BadRequest
from server.tables import Moment

MAX_ITEMS = 500

Item = TypeVar("Item")
Row = TypeVar("Row")
Column: TypeAlias = InstrumentedAttribute[Any]
Key: TypeAlias = int | str | datetime


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next: str | None = Field(None, description="Cursor of the next page; null on the last one.")


class Slice(BaseModel):
    """Which page a request asks for."""

    cursor: str | None = None
    limit: int = 50


def _slice(
    cursor: Annotated[
        str | None, Query(max_length=500, description="`next` of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_ITEMS, description="Most items on the page.")] = 50,
) -> Slice:
    return Slice(cursor=cursor, limit=limit)


SliceDep = Annotated[Slice, Depends(_slice)]


def page_of(
    session: Session,
    query: Select[Row],
    key: Column | Sequence[Column],
    part: Slice,
    descending: bool = False,
) -> tuple[list[Row], str | None]:
    """The rows of one page in the order of `key`, and the next cursor.

    The columns of the key are unique together, and never null. Raises BadRequest `bad_cursor`.
    """
    columns = [key] if isinstance(key, InstrumentedAttribute) else list(key)
    if part.cursor is not None:
        query = query.where(beyond(columns, decode(part.cursor, columns), descending))
    order = [column.desc() if descending else column.asc() for column in columns]
    rows = list(session.scalars(query.order_by(*order).limit(part.limit + 1)))
    if len(rows) <= part.limit:
        return rows, None
    rows = rows[: part.limit]
    return rows, encode([getattr(rows[-1], column.key) for column in columns])


def beyond(
    columns: Sequence[Column], last: Sequence[Key], descending: bool = False
) -> ColumnElement[bool]:
    """The condition on rows that come after the key `last`."""
    values = (literal(value, column.type) for value, column in zip(last, columns, strict=True))
    here, there = tuple_(*columns), tuple_(*values)
    return here < there if descending else here > there


def encode(last: Sequence[Key]) -> str:
    """The cursor behind a row with this key."""
    told = [value.isoformat() if isinstance(value, datetime) else value for value in last]
    return base64.urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("=")


def decode(cursor: str, columns: Sequence[Column]) -> list[Any]:
    """The key inside a cursor of a list with this order. Raises BadRequest `bad_cursor`."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        last = json.loads(base64.urlsafe_b64decode(padded.encode()))
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise BadRequest("bad_cursor", "the cursor is not one of this server") from error
    same_length = isinstance(last, list) and len(last) == len(columns)
    if not (same_length and all(map(_fits, last, columns))):
        raise BadRequest("bad_cursor", "the cursor belongs to another list")
    try:
        return [_read(value, column) for value, column in zip(last, columns, strict=True)]
    except (ValueError, OverflowError) as error:
        raise BadRequest("bad_cursor", "the cursor is not one of this server") from error


def _read(value: Any, column: Column) -> Key:
    if not isinstance(column.type, Moment):
        return value  # type: ignore[no-any-return]
    return datetime.fromisoformat(value).astimezone(UTC)


def _fits(value: object, column: Column) -> bool:
    if isinstance(column.type, Moment):
        return isinstance(value, str)
    wanted = column.type.python_type
    return type(value) is wanted and (not isinstance(value, int) or 0 <= value < 1 << 63)
