"""What is made of versions: refinements and packages."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from server.tables.registry import Dataset, Model, Version
from server.tables.types import Base, Json, now


class Refinement(Base):
    """One compact-refine job. State: queued | running | succeeded | failed | cancelled."""

    __tablename__ = "refinements"
    __table_args__ = (Index("ix_refinements_state", "state"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), index=True)
    base_version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"))
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    evaluation_dataset_id: Mapped[int | None] = mapped_column(ForeignKey("datasets.id"))
    method: Mapped[Json]
    """{"id", "options"}"""
    recipe: Mapped[Json]
    target_arguments: Mapped[Json | None]
    """Arguments of the architecture in which the target differs from the base."""
    state: Mapped[str] = mapped_column(String(20), default="queued")
    progress: Mapped[Json | None]
    curve: Mapped[Json | None]
    """What `auto` has measured, see `server.publish.budget.curve`."""
    error: Mapped[Json | None]
    """{"code", "message", "todo"}"""
    attempts: Mapped[int] = mapped_column(default=0)
    target_version_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    package_id: Mapped[int | None] = mapped_column(ForeignKey("packages.id"))
    worker: Mapped[str | None] = mapped_column(String(100))
    """The process that runs it, and when that last said so: another one takes over the silent."""
    heartbeat_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    model: Mapped[Model] = relationship()
    base_version: Mapped[Version] = relationship(foreign_keys=[base_version_id])
    target_version: Mapped[Version | None] = relationship(foreign_keys=[target_version_id])
    dataset: Mapped[Dataset] = relationship(foreign_keys=[dataset_id])
    evaluation_dataset: Mapped[Dataset | None] = relationship(foreign_keys=[evaluation_dataset_id])
    package: Mapped[Package | None] = relationship()


class Package(Base):
    """An update package in the blob store. State: built | published | removed."""

    __tablename__ = "packages"
    __table_args__ = (Index("ix_packages_target_version_id_state", "target_version_id", "state"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), index=True)
    base_version_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    """Null: `full`, which needs no base."""
    target_version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"))
    method: Mapped[str] = mapped_column(String(40))
    options: Mapped[Json] = mapped_column(default=dict)
    needs: Mapped[Json | None]
    """What a device must know to decode it: {"format", "version", "coder", "dtypes"}; null: not
    noted, as before there was more than one of each."""
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    learnable_count: Mapped[int | None] = mapped_column(BigInteger)
    metrics: Mapped[Json] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(String(20), default="built")
    created_at: Mapped[datetime] = mapped_column(default=now)
    removed_at: Mapped[datetime | None]

    model: Mapped[Model] = relationship()
    base_version: Mapped[Version | None] = relationship(foreign_keys=[base_version_id])
    target_version: Mapped[Version] = relationship(foreign_keys=[target_version_id])
