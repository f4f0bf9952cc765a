"""Signed metadata, byte for byte as they were published (see `server/trust`)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from server.tables.types import Base, now


class TrustRoot(Base):
    """One version of the root metadata, which all models share; none is ever removed."""

    __tablename__ = "trust_roots"

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    content: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(default=now)


class TrustMetadata(Base):
    """One version of one role's metadata of a model; the highest one is in use.

    Older ones are kept for a while: what devices hold of them, answers are compressed against.
    """

    __tablename__ = "trust_metadata"
    __table_args__ = (Index("ix_trust_metadata_due_at", "due_at"),)

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), primary_key=True)
    role: Mapped[str] = mapped_column(String(20), primary_key=True)
    """timestamp | snapshot | targets | packages"""
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    content: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime]
    due_at: Mapped[datetime | None]
    """When it is to be signed anew: long before it expires, and at once after a restore. Null:
    a later version is in use."""
    created_at: Mapped[datetime] = mapped_column(default=now)
