"""API keys of operators, and what was made by those that are held to something."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from server.tables.types import Base, now


class ApiKey(Base):
    """A key of the management plane; rows stay when it is revoked, so that names keep a meaning."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(12), primary_key=True)
    """12 hex digits, part of the key's text: by them its row is found."""
    name: Mapped[str] = mapped_column(String(64), unique=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the other part."""
    role: Mapped[str] = mapped_column(String(20))
    """viewer | operator | admin"""
    models: Mapped[list[str] | None]
    """Names of the models that it is held to; null: all."""
    groups: Mapped[list[int] | None]
    """Ids of the groups to whose devices it is held; null: all devices."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    created_by: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    """To the minute or so, and"""
    last_used_from: Mapped[str | None] = mapped_column(String(64))
    """the address from which it was."""


class RolloutGroup(Base):
    """A group to whose devices a rollout is held, because the key that made it is.

    Keys that are held to groups see a rollout where all its groups are among theirs.
    """

    __tablename__ = "rollout_groups"

    rollout_id: Mapped[int] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    group_id: Mapped[int] = mapped_column(ForeignKey("groups.id"), primary_key=True)


class DatasetKey(Base):
    """The key, held to models, by which a dataset was registered: it sees it before its use."""

    __tablename__ = "dataset_keys"

    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    """The key's name."""
