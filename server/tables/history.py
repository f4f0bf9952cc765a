"""Events, and who hears of them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from server.tables.types import Base, Json, now, transaction_number


class Event(Base):
    """Something that happened; append-only. The ids outlive what they name.

    Read in the order (`transaction`, `id`), and on PostgreSQL only below the oldest transaction
    that is still open: ids alone may become visible out of order.
    """

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_transaction_id", "transaction", "id"),
        *(
            Index(f"ix_events_{name}_transaction_id", name, "transaction", "id")
            for name in (
                "kind",
                "model_id",
                "version_id",
                "refinement_id",
                "device_id",
                "rollout_id",
            )
        ),
        {"sqlite_autoincrement": True},
    )

    transaction: Mapped[int] = mapped_column(
        BigInteger, default=transaction_number(), server_default="0"
    )
    """PostgreSQL's id of the transaction that wrote it; 0 on SQLite, where one writes at a time."""
    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    at: Mapped[datetime] = mapped_column(default=now)
    kind: Mapped[str] = mapped_column(String(60))
    model_id: Mapped[int | None]
    version_id: Mapped[int | None]
    package_id: Mapped[int | None]
    refinement_id: Mapped[int | None]
    device_id: Mapped[str | None] = mapped_column(String(36))
    rollout_id: Mapped[int | None]
    assignment_id: Mapped[int | None]
    data: Mapped[Json] = mapped_column(default=dict)
    actor: Mapped[str | None] = mapped_column(String(100))
    """Who did it: the name of an operator's key, a device's id, `system`; null: not noted, as
    before there were keys."""
    address: Mapped[str | None] = mapped_column(String(64))
    """From where; null: the server itself, or not noted."""


class Webhook(Base):
    """An address that hears of events. State: active | paused."""

    __tablename__ = "webhooks"

    id: Mapped[int] = mapped_column(primary_key=True)
    url: Mapped[str] = mapped_column(Text)
    secret: Mapped[str] = mapped_column(String(200))
    """Key of the HMAC-SHA256 in each delivery; shown once."""
    filter: Mapped[str | None] = mapped_column(Text)
    """Which events; null: all."""
    state: Mapped[str] = mapped_column(String(20), default="active")
    after_transaction: Mapped[int] = mapped_column(BigInteger, default=0)
    after_event: Mapped[int] = mapped_column(BigInteger, default=0)
    """The last event, in the order of events, that was turned into a delivery or passed over."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class Delivery(Base):
    """One event on its way to one webhook. State: pending | delivered | given_up."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("webhook_id", "event_id"),
        Index("ix_deliveries_state_due_at", "state", "due_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    webhook_id: Mapped[int] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event_id: Mapped[int] = mapped_column(BigInteger)
    body: Mapped[str] = mapped_column(Text)
    """What is sent, fixed when the delivery is made: every attempt brings the same bytes."""
    state: Mapped[str] = mapped_column(String(20), default="pending")
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime] = mapped_column(default=now)
    status: Mapped[int | None]
    """HTTP status of the last attempt, and"""
    error: Mapped[str | None] = mapped_column(String(500))
    """what went wrong where there was none."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]
