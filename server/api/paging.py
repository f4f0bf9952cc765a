"""Lists as `{"items": [...], "next": cursor}`, by keyset: page N costs as much as page 1.

The cursor is opaque to clients; inside it is the last key of the page. A row added meanwhile
never makes a page skip or repeat another.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, Field
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from server.errors import BadRequest

MAX_ITEMS = 500

Item = TypeVar("Item")
Row = TypeVar("Row")


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
    key: InstrumentedAttribute[Any],
    part: Slice,
    descending: bool = False,
) -> tuple[list[Row], str | None]:
    """The rows of one page in the order of the unique column `key`, and the next cursor.

    Raises BadRequest `bad_cursor`.
    """
    if part.cursor is not None:
        last = _decode(part.cursor, key)
        query = query.where(key < last if descending else key > last)
    query = query.order_by(key.desc() if descending else key.asc()).limit(part.limit + 1)
    rows = list(session.scalars(query))
    if len(rows) <= part.limit:
        return rows, None
    rows = rows[: part.limit]
    return rows, _encode(getattr(rows[-1], key.key))


def _encode(last: int | str) -> str:
    return base64.urlsafe_b64encode(json.dumps([last]).encode()).decode().rstrip("=")


def _decode(cursor: str, key: InstrumentedAttribute[Any]) -> int | str:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        (last,) = json.loads(base64.urlsafe_b64decode(padded.encode()))
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise BadRequest("bad_cursor", "the cursor is not one of this server") from error
    wanted = key.type.python_type
    if type(last) is not wanted or (wanted is int and not 0 <= last < 1 << 63):
        raise BadRequest("bad_cursor", "the cursor belongs to another list")
    return last  # type: ignore[no-any-return]
