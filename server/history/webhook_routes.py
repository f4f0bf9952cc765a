"""Routes of webhooks: make, list, change, delete, test; what was sent, and sending it again."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy import select

from server.api.context import EngineDep, SettingsDep
from server.api.idempotency import OnceDep
from server.api.paging import Page, SliceDep, page_of
from server.api.problems import answers
from server.db import reading, writing
from server.history.targets import check_target
from server.history.webhook_schemas import (
    DeliveryOut,
    WebhookChangeIn,
    WebhookIn,
    WebhookMadeOut,
    WebhookOut,
    describe_delivery,
    describe_webhook,
)
from server.history.webhooks import (
    change_webhook,
    create_webhook,
    find_delivery,
    find_webhook,
    remove_webhook,
    send_again,
    send_test,
)
from server.tables import Delivery, Webhook

router = APIRouter(prefix="/api/v1/webhooks", tags=["webhooks"])

WebhookPath = Annotated[int, Path(ge=1, lt=1 << 31, description="Id of the webhook.")]
DeliveryPath = Annotated[int, Path(ge=1, lt=1 << 31, description="Id of the delivery.")]

REFUSED = ("webhook.bad_url", "webhook.host_not_allowed", "filter.syntax", "filter.unknown_field")


@router.post(
    "",
    summary="Create a webhook",
    status_code=201,
    response_model=WebhookMadeOut,
    responses=answers(*REFUSED, "webhook.too_many", "request.key_reused"),
)
def post_webhook(
    body: WebhookIn, engine: EngineDep, settings: SettingsDep, once: OnceDep
) -> Response:
    """Have events sent to an address from now on, each signed with the secret of this answer.

    At least once, in order where nothing fails; see `docs/webhooks.md` for what a receiver does.
    """
    check_target(body.url, settings.webhook_hosts)
    with writing(engine) as session:

        def create() -> WebhookMadeOut:
            webhook = create_webhook(session, body.url, body.filter, body.secret)
            shown = describe_webhook(session, webhook).model_dump()
            return WebhookMadeOut(**shown, secret=webhook.secret)

        return once.answer(session, create)


@router.get("", summary="List webhooks", responses=answers("request.bad_cursor"))
def get_webhooks(engine: EngineDep, part: SliceDep) -> Page[WebhookOut]:
    """All webhooks, oldest first."""
    with reading(engine) as session:
        rows, after = page_of(session, select(Webhook), Webhook.id, part)
        return Page(items=[describe_webhook(session, row) for row in rows], next=after)


@router.get("/{webhook_id}", summary="Show a webhook", responses=answers("webhook.not_found"))
def get_webhook(webhook_id: WebhookPath, engine: EngineDep) -> WebhookOut:
    """One webhook, with its deliveries counted by state."""
    with reading(engine) as session:
        return describe_webhook(session, find_webhook(session, webhook_id))


@router.patch(
    "/{webhook_id}",
    summary="Change a webhook",
    responses=answers(*REFUSED, "webhook.not_found"),
)
def patch_webhook(
    webhook_id: WebhookPath, body: WebhookChangeIn, engine: EngineDep, settings: SettingsDep
) -> WebhookOut:
    """Change what is given. A paused webhook is sent nothing; once active, it gets all it missed.

    A new secret also signs what is still to be sent. `"filter": null` takes the filter away.
    """
    changes = body.model_dump(exclude_unset=True)
    changes = {n: value for n, value in changes.items() if value is not None or n == "filter"}
    if "url" in changes:
        check_target(changes["url"], settings.webhook_hosts)
    with writing(engine) as session:
        webhook = find_webhook(session, webhook_id)
        change_webhook(session, webhook, changes)
        return describe_webhook(session, webhook)


@router.delete(
    "/{webhook_id}",
    summary="Delete a webhook",
    status_code=204,
    responses=answers("webhook.not_found"),
)
def delete_webhook(webhook_id: WebhookPath, engine: EngineDep) -> None:
    """Send nothing more to it, not even what is waiting; the log of its deliveries goes with it."""
    with writing(engine) as session:
        remove_webhook(session, find_webhook(session, webhook_id))


@router.post(
    "/{webhook_id}/test",
    summary="Test a webhook",
    status_code=202,
    responses=answers("webhook.not_found"),
)
def post_test(webhook_id: WebhookPath, engine: EngineDep) -> DeliveryOut:
    """Send it an event `webhook.tested`, whatever its filter; the delivery tells how it went."""
    with writing(engine) as session:
        delivery = send_test(session, find_webhook(session, webhook_id))
        return describe_delivery(session, delivery)


@router.get(
    "/{webhook_id}/deliveries",
    summary="List a webhook's deliveries",
    responses=answers("webhook.not_found", "request.bad_cursor"),
)
def get_deliveries(
    webhook_id: WebhookPath,
    engine: EngineDep,
    part: SliceDep,
    state: Annotated[
        Literal["pending", "delivered", "given_up"] | None, Query(description="In this state.")
    ] = None,
) -> Page[DeliveryOut]:
    """What was sent and what waits, newest first."""
    with reading(engine) as session:
        webhook = find_webhook(session, webhook_id)
        query = select(Delivery).where(Delivery.webhook_id == webhook.id)
        if state is not None:
            query = query.where(Delivery.state == state)
        rows, after = page_of(session, query, Delivery.id, part, descending=True)
        return Page(items=[describe_delivery(session, row) for row in rows], next=after)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    summary="Send a delivery again",
    status_code=202,
    responses=answers("webhook.not_found", "webhook.delivery_not_found"),
)
def post_redeliver(
    webhook_id: WebhookPath, delivery_id: DeliveryPath, engine: EngineDep
) -> DeliveryOut:
    """Send it once more, whatever became of it: with the same id and the same bytes."""
    with writing(engine) as session:
        delivery = find_delivery(session, webhook_id, delivery_id)
        send_again(delivery)
        return describe_delivery(session, delivery)
