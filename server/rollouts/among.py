"""Conditions over many ids, given to the database as one value.

A thousand values of their own in each statement are work for Python alone: it builds the text of
the statement anew each time, and holds its lock, so that polls wait (ADR 0017).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, any_, func, literal, select
from sqlalchemy.orm import InstrumentedAttribute, Session


def among(
    session: Session, column: InstrumentedAttribute[Any], ids: Collection[str | int]
) -> ColumnElement[bool]:
    """Whether the column is one of these ids."""
    if session.get_bind().dialect.name == "sqlite":
        each = func.json_each(json.dumps(list(ids))).table_valued("value")
        return column.in_(select(each.c.value))
    return column == any_(literal(list(ids), ARRAY(column.type)))
