"""How devices come to be known, and what proves what they said."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from server.tables.types import Base, now


class EnrolmentToken(Base):
    """What a new device must show; the server keeps its hash alone."""

    __tablename__ = "enrolment_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    secret_hash: Mapped[str] = mapped_column(String(64), unique=True)
    accept: Mapped[str] = mapped_column(String(20), default="automatic")
    """automatic | by_hand: whether devices that come by it wait for an operator."""
    tags: Mapped[list[str]] = mapped_column(default=list)
    """Given to the devices that come by it."""
    models: Mapped[list[str] | None]
    """Names of the models that devices may claim which come by it; null: any."""
    max_uses: Mapped[int | None]
    """Null: any number."""
    uses: Mapped[int] = mapped_column(default=0)
    device_id: Mapped[str | None] = mapped_column(ForeignKey("devices.id"))
    """The one device that it is for, whatever key that comes with; null: new devices."""
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)


class Preauthorisation(Base):
    """A device that need not wait for an operator, known by its key or its name; for one device."""

    __tablename__ = "preauthorisations"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(String(200), index=True)
    public_key: Mapped[str | None] = mapped_column(String(64), index=True)
    """Where both are given, the device must have both."""
    tags: Mapped[list[str]] = mapped_column(default=list)
    models: Mapped[list[str] | None]
    """Names of the models that it may claim, as far as its token allows them too; null: any."""
    device_id: Mapped[str | None] = mapped_column(ForeignKey("devices.id"))
    """The device that came; null: it is still expected."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class RetiredKey(Base):
    """A key that a device had before; worth nothing, for ever."""

    __tablename__ = "retired_keys"

    public_key: Mapped[str] = mapped_column(String(64), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    retired_at: Mapped[datetime] = mapped_column(default=now)


class SignedReport(Base):
    """A report as it came, byte for byte, with the signature that proves who said it."""

    __tablename__ = "signed_reports"
    __table_args__ = (
        Index("ix_signed_reports_device_id_digest", "device_id", "digest"),
        Index("ix_signed_reports_at", "at"),
    )

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    model_name: Mapped[str] = mapped_column(String(100))
    counter: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(20))
    weights_digest: Mapped[str | None] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the body."""
    body: Mapped[str] = mapped_column(Text)
    signature: Mapped[str] = mapped_column(String(88))
    """Base64, of `shared.wire.signed_bytes`."""
    public_key: Mapped[str] = mapped_column(String(64))
    """The key that the device had then."""
    at: Mapped[datetime] = mapped_column(default=now)
