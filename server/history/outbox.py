"""From events to deliveries: the table of events is the outbox (ADR 0012).

An event is written in the transaction of the change that it tells of, so none can be lost. What is
still to be sent follows from each webhook's position in the order of events. Deliveries are made,
with their bytes, in the transaction that moves the position: each event becomes one delivery, once,
whenever the process dies and however many do this at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from server.db import reading, writing
from server.filters import events_where
from server.history.order import KEY, Position, after, newest
from server.history.webhooks import OWN_KINDS, deliveries
from server.tables import Delivery, Event, Webhook
from shared.errors import WeftError

log = logging.getLogger("weft.webhooks")

#: Events in one transaction, and transactions for one webhook before the next has its turn.
BATCH = 200
MOST_BATCHES = 20


def fill(engine: Engine) -> None:
    """Make the deliveries of all events that active webhooks have not passed yet."""
    for webhook_id in _behind(engine):
        try:
            for _ in range(MOST_BATCHES):
                if not _fill_one(engine, webhook_id):
                    break
        except WeftError as error:  # of one webhook: it is tried again, the others go on
            log.error("webhook %d: %s", webhook_id, error)


def _behind(engine: Engine) -> list[int]:
    """The webhooks that have events before them."""
    with reading(engine) as session:
        last = newest(session)
        active = session.scalars(select(Webhook).where(Webhook.state == "active")).all()
        return [webhook.id for webhook in active if _position(webhook) < last]


def _fill_one(engine: Engine, webhook_id: int) -> bool:
    """Pass the next events of a webhook; whether there may be more."""
    with writing(engine) as session:
        webhook = session.get(Webhook, webhook_id, with_for_update=True)
        if webhook is None or webhook.state != "active":
            return False
        query = select(Event).where(after(_position(webhook))).order_by(*KEY).limit(BATCH)
        events = session.scalars(query).all()
        if not events:
            return False
        wanted = _wanted(session, webhook, events)
        session.add_all(deliveries(session, webhook, [e for e in events if e.id in wanted]))
        webhook.after_transaction, webhook.after_event = events[-1].transaction, events[-1].id
        return len(events) == BATCH


def _wanted(session: Session, webhook: Webhook, events: Sequence[Event]) -> Collection[int]:
    """Of these events the ids of those that the webhook is to hear of, and has not."""
    ids = [event.id for event in events if not event.kind.startswith(OWN_KINDS)]
    query = select(Event.id).where(Event.id.in_(ids))
    if webhook.filter is not None:
        query = query.where(events_where(session, webhook.filter))
    there = select(Delivery.event_id).where(
        Delivery.webhook_id == webhook.id, Delivery.event_id.in_(ids)
    )
    return set(session.scalars(query)) - set(session.scalars(there))


def _position(webhook: Webhook) -> Position:
    return Position(webhook.after_transaction, webhook.after_event)
