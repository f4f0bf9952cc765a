"""The order of events: (transaction, id), and only what can have no gap before it any more.

Ids are drawn when rows are written, and rows are seen when their transaction ends: on PostgreSQL
event 7 may be seen while event 6 is still to come. A reader that went on after 7 would never see 6.
So the order is by transaction first, and events are shown only below the oldest transaction that is
still open: whatever is committed later comes behind everything that was shown.

On SQLite one transaction writes at a time, the number is 0, and ids alone are the order.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Engine, Text, and_, func, select, tuple_, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement

from server.api.paging import beyond, decode
from server.db import writing
from server.errors import BadRequest
from server.tables import Event, Webhook

KEY: Final = (Event.transaction, Event.id)

BEYOND_ALL: Final = (1 << 63) - 1


class Position(NamedTuple):
    """An event's place in the order."""

    transaction: int = 0
    id: int = 0


class _OldestOpen(FunctionElement[int]):
    """The oldest transaction that is still open: what is below has ended, one way or the other."""

    inherit_cache = True
    type = BigInteger()


@compiles(_OldestOpen)
def _none_is_open(_element: object, _compiler: object, **_: object) -> str:
    return str(BEYOND_ALL)


@compiles(_OldestOpen, "postgresql")
def _in_the_snapshot(_element: object, _compiler: object, **_: object) -> str:
    return "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"


def settled() -> ColumnElement[bool]:
    """The condition on events before which none can appear any more."""
    return Event.transaction < _OldestOpen()


def after(position: Position) -> ColumnElement[bool]:
    """The condition on events that come later than `position` and may be shown."""
    return and_(beyond(KEY, position), settled())


def until(position: Position) -> ColumnElement[bool]:
    """The condition on events up to `position`, with it."""
    return tuple_(*KEY) <= tuple_(*position)


def newest(session: Session) -> Position:
    """The last event that may be shown."""
    query = select(*KEY).where(settled()).order_by(*(column.desc() for column in KEY)).limit(1)
    row = session.execute(query).one_or_none()
    return Position(*row) if row is not None else Position()


def read_cursor(session: Session, cursor: str) -> Position:
    """The place that a cursor names.

    Raises BadRequest `bad_cursor`, also where it is of another database and lies ahead of this
    one: a reader that went on from there would wait for ever.
    """
    position = Position(*map(int, decode(cursor, KEY)))
    if position.transaction >= _next_number(session):
        raise BadRequest("bad_cursor", "the cursor is of another database")
    return position


def adopt_restored(engine: Engine) -> None:
    """At the server's start: forget the transaction numbers of another PostgreSQL cluster.

    After a restore they mean nothing, and may lie far ahead of this one's, where no reader would
    get to see them. All become 0: the events that came with the backup are in the order of their
    ids, before all new ones. Webhooks go on behind the last event that they had passed.
    """
    if engine.dialect.name != "postgresql":
        return
    with writing(engine) as session:
        foreign = select(Event.id).where(Event.transaction >= _next_number(session))
        if session.scalar(foreign.limit(1)) is None:
            return
        number_by_ids(session)


def _next_number(session: Session) -> int:
    """No transaction of this database that is seen here has this number, or one above."""
    if session.get_bind().dialect.name != "postgresql":
        return 1
    text = session.scalar(select(func.pg_snapshot_xmax(func.pg_current_snapshot()).cast(Text)))
    return int(str(text))


def number_by_ids(session: Session) -> None:
    """Put all events into the order of their ids, and webhooks behind the last that they passed."""
    for webhook in session.scalars(select(Webhook).with_for_update()):
        passed = Position(webhook.after_transaction, webhook.after_event)
        first = session.scalar(select(func.min(Event.id)).where(beyond(KEY, passed)))
        last = session.scalar(select(func.max(Event.id))) or 0
        webhook.after_transaction = 0
        webhook.after_event = last if first is None else first - 1
    session.flush()
    session.execute(update(Event).values(transaction=0))
