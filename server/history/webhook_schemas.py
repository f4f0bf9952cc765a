"""Webhooks and deliveries as the API takes and shows them; a secret is shown once."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from sqlalchemy.orm import Session

from server.history.courier import delivery_name
from server.history.webhooks import count_deliveries
from server.tables import Delivery, Webhook

URL = "https://hooks.example.org/weft"
ONLY_FAILURES = "kind=in=(assignment.failed,rollout.aborted)"

SHOWN: dict[str, JsonValue] = {
    "id": 1,
    "url": URL,
    "filter": ONLY_FAILURES,
    "state": "active",
    "deliveries": {"delivered": 12, "pending": 1},
    "created_at": "2026-03-01T10:00:00Z",
}

Url = Annotated[str, Field(max_length=2000, description="https://, on an allowed host.")]
Secret = Annotated[
    str,
    Field(
        min_length=16,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="Visible ASCII characters; generated where none is given.",
    ),
]
Filter = Annotated[str, Field(description="Which events, as an RSQL filter; null: all.")]


class WebhookIn(BaseModel):
    """A webhook to make."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"url": URL, "filter": ONLY_FAILURES}]}
    )

    url: Url
    filter: Filter | None = None
    secret: Secret | None = None


class WebhookChangeIn(BaseModel):
    """What is to change; what is not given stays."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"state": "paused"}, {"filter": None}]}
    )

    url: Url | None = None
    filter: Filter | None = None
    secret: Secret | None = None
    state: Literal["active", "paused"] | None = None


class WebhookOut(BaseModel):
    """An address that hears of events."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [SHOWN]})

    id: int
    url: str
    filter: str | None
    state: str = Field(description="active | paused: nothing is sent, and nothing is lost")
    deliveries: dict[str, int] = Field(description="State -> number of deliveries.")
    created_at: datetime


class WebhookMadeOut(WebhookOut):
    """A webhook that was just made, with its secret."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**SHOWN, "deliveries": {}, "secret": "kG8v..."}]}
    )

    secret: str = Field(description="Key of the signatures; not shown again.")


class DeliveryOut(BaseModel):
    """One event on its way to one webhook."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": 7,
                    "delivery": "5f0c1e0b-7",
                    "event_id": 41,
                    "kind": "assignment.failed",
                    "state": "pending",
                    "attempts": 2,
                    "due_at": "2026-03-01T10:15:10Z",
                    "status": 500,
                    "error": "the receiver refused it",
                    "created_at": "2026-03-01T10:15:00Z",
                    "finished_at": None,
                }
            ]
        }
    )

    id: int
    delivery: str = Field(description="The header `Weft-Delivery`, the same at every attempt.")
    event_id: int
    kind: str
    state: str = Field(description="pending | delivered | given_up")
    attempts: int
    due_at: datetime = Field(description="When it is sent next, while it is pending.")
    status: int | None = Field(description="HTTP status of the last attempt.")
    error: str | None = Field(description="What went wrong at the last attempt.")
    created_at: datetime
    finished_at: datetime | None


def describe_webhook(session: Session, webhook: Webhook) -> WebhookOut:
    """The webhook as the API shows it."""
    same = WebhookOut.model_fields.keys() - {"deliveries"}
    return WebhookOut(
        **{name: getattr(webhook, name) for name in same},
        deliveries=count_deliveries(session, webhook),
    )


def describe_delivery(session: Session, delivery: Delivery) -> DeliveryOut:
    """The delivery as the API shows it."""
    same = DeliveryOut.model_fields.keys() - {"delivery", "kind"}
    return DeliveryOut(
        **{name: getattr(delivery, name) for name in same},
        delivery=delivery_name(session, delivery),
        kind=json.loads(delivery.body)["kind"],
    )
