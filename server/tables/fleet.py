"""Devices: what they hold, what operators say of them, what they ran when."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from server.tables.types import Base, Json, now


class Device(Base):
    """An enrolled device."""

    __tablename__ = "devices"
    __table_args__ = (
        Index("ix_devices_name", "name"),
        Index("ix_devices_created_at", "created_at"),
        Index("ix_devices_public_key", "public_key", unique=True),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    standing: Mapped[str] = mapped_column(String(20), default="accepted")
    """pending | accepted | cloned | decommissioned: whether it is offered anything."""
    public_key: Mapped[str | None] = mapped_column(String(64))
    """Its Ed25519 key, in hex; null: it has enrolled before devices had keys."""
    allowed_models: Mapped[list[str] | None]
    """Names of the models that it may say it runs; null: any."""
    enrolment_token_id: Mapped[int | None]
    """The token by which it came; null: the server's setting."""
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    token_issued_at: Mapped[datetime | None]
    token_expires_at: Mapped[datetime | None]
    """Null: never."""
    renewal_counter: Mapped[int] = mapped_column(BigInteger, default=0)
    """Of the last renewal of its token."""
    generation: Mapped[int] = mapped_column(BigInteger, default=1)
    """Bumped by whatever changes the device's desired state; its ETag."""
    report_counter: Mapped[int] = mapped_column(BigInteger, default=0)
    report_digest: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of the last report's bytes: the same counter must bring the same bytes."""
    capabilities: Mapped[Json] = mapped_column(default=dict)
    attributes: Mapped[Json] = mapped_column(default=dict)
    """Inventory that the device reports of itself: name -> text."""
    lot: Mapped[int] = mapped_column(BigInteger, default=0)
    """The device's number in the draw of phases: 31 bits of the SHA-256 of its id."""
    poll_interval: Mapped[float | None]
    """Seconds, and"""
    update_budget: Mapped[int | None] = mapped_column(BigInteger)
    """bytes of one update, as its groups set them; null: the server's own setting."""
    failures: Mapped[int] = mapped_column(default=0)
    """Updates that failed in a row."""
    last_seen_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)

    models: Mapped[list[DeviceModel]] = relationship(back_populates="device")
    tags: Mapped[list[DeviceTag]] = relationship(cascade="all, delete-orphan")


class DeviceTag(Base):
    """A word that operators put on a device."""

    __tablename__ = "device_tags"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    tag: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)


class Group(Base):
    """A saved filter over devices, with what holds for those that match."""

    __tablename__ = "groups"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    filter: Mapped[str] = mapped_column(Text)
    poll_interval: Mapped[float | None]
    """Seconds; where a device is in several groups, the shortest counts."""
    update_budget: Mapped[int | None] = mapped_column(BigInteger)
    """Most bytes of one update; where a device is in several groups, the smallest counts."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


#: `DeviceModel.state` after a restore, until the device has told what it holds.
NOT_TOLD = "unknown"


class DeviceModel(Base):
    """What one device holds of one model, as far as it has said.

    By the model's name, not its id: a device may enrol before the model is registered.
    """

    __tablename__ = "device_models"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    model_name: Mapped[str] = mapped_column(String(100), primary_key=True, index=True)
    weights_digest: Mapped[str | None] = mapped_column(String(64))
    slots: Mapped[list[str]] = mapped_column(default=list)
    state: Mapped[str] = mapped_column(String(20), default="idle")
    health: Mapped[str] = mapped_column(String(20), default="unverified")

    device: Mapped[Device] = relationship(back_populates="models")


class Run(Base):
    """The time during which a device had one set of weights of a model in use."""

    __tablename__ = "runs"
    __table_args__ = (Index("ix_runs_device_id_model_name", "device_id", "model_name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    model_name: Mapped[str] = mapped_column(String(100))
    weights_digest: Mapped[str] = mapped_column(String(64), index=True)
    since: Mapped[datetime]
    until: Mapped[datetime | None]
    """Null: until now."""
    report_id: Mapped[int | None] = mapped_column(BigInteger, index=True)
    """The signed report that told of it; null: the enrolment did."""
