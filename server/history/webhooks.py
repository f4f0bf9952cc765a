"""Webhooks: who hears of which events. Functions act in the caller's write transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from server.errors import BadWebhook
from server.filters import check as check_filter
from server.history.events import record
from server.history.naming import describe
from server.history.order import newest
from server.history.signing import new_secret
from server.history.targets import host_of
from server.tables import Delivery, Event, Webhook, now

#: Each may keep a thread busy.
MAX_WEBHOOKS = 50

#: Events about webhooks are sent to none: one that nobody takes would make another one, for ever.
OWN_KINDS = "webhook."


def create_webhook(session: Session, url: str, wanted: str | None, secret: str | None) -> Webhook:
    """Add a webhook, which hears of what happens from now on.

    Raises BadFilter, BadWebhook `too_many`.
    """
    if wanted is not None:
        check_filter("events", wanted)
    if (session.scalar(select(func.count()).select_from(Webhook)) or 0) >= MAX_WEBHOOKS:
        raise BadWebhook("too_many", f"there are {MAX_WEBHOOKS} webhooks, which is the most")
    position = newest(session)
    webhook = Webhook(
        url=url,
        secret=secret or new_secret(),
        filter=wanted,
        after_transaction=position.transaction,
        after_event=position.id,
    )
    session.add(webhook)
    session.flush()
    _tell(session, "created", webhook)
    return webhook


def change_webhook(session: Session, webhook: Webhook, changes: dict[str, Any]) -> None:
    """Set columns of a webhook. Raises BadFilter."""
    if changes.get("filter") is not None:
        check_filter("events", changes["filter"])
    for name, value in changes.items():
        setattr(webhook, name, value)
    _tell(session, "changed", webhook, fields=sorted(changes))


def remove_webhook(session: Session, webhook: Webhook) -> None:
    """Remove a webhook, with all its deliveries."""
    _tell(session, "deleted", webhook)
    session.execute(delete(Webhook).where(Webhook.id == webhook.id))


def find_webhook(session: Session, webhook_id: int) -> Webhook:
    """The webhook. Raises BadWebhook `not_found`."""
    webhook = session.get(Webhook, webhook_id)
    if webhook is None:
        raise BadWebhook("not_found", f"there is no webhook {webhook_id}")
    return webhook


def find_delivery(session: Session, webhook_id: int, delivery_id: int) -> Delivery:
    """The delivery. Raises BadWebhook `not_found`, `delivery_not_found`."""
    find_webhook(session, webhook_id)
    found = session.get(Delivery, delivery_id)
    if found is None or found.webhook_id != webhook_id:
        raise BadWebhook(
            "delivery_not_found", f"webhook {webhook_id} has no delivery {delivery_id}"
        )
    return found


def send_again(delivery: Delivery) -> None:
    """Have a delivery sent once more, whatever became of it: the same id, the same bytes."""
    delivery.state, delivery.attempts, delivery.due_at = "pending", 0, now()
    delivery.finished_at = None


def send_test(session: Session, webhook: Webhook) -> Delivery:
    """Send one event to this webhook alone, whatever its filter."""
    event = _tell(session, "tested", webhook)
    session.flush()
    (delivery,) = deliveries(session, webhook, [event])
    session.add(delivery)
    session.flush()
    return delivery


def deliveries(session: Session, webhook: Webhook, events: Sequence[Event]) -> list[Delivery]:
    """A delivery of each event: what is sent is what the API shows of it."""
    return [
        Delivery(webhook_id=webhook.id, event_id=event.id, body=event.model_dump_json())
        for event in describe(session, events)
    ]


def count_deliveries(session: Session, webhook: Webhook) -> dict[str, int]:
    """State -> number of deliveries."""
    query = select(Delivery.state, func.count()).where(Delivery.webhook_id == webhook.id)
    return dict(session.execute(query.group_by(Delivery.state)).all())


def _tell(session: Session, what: str, webhook: Webhook, **more: Any) -> Event:
    told = {"webhook": webhook.id, "host": host_of(webhook.url), **more}
    return record(session, f"{OWN_KINDS}{what}", told)
