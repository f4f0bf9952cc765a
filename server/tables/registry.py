"""Models, their versions, and datasets."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from server.tables.access import DatasetKey
from server.tables.types import Base, Json, now


class Model(Base):
    """A named architecture with a tensor schema (null until the first version defines it)."""

    __tablename__ = "models"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    architecture: Mapped[str | None] = mapped_column(String(200))
    arguments: Mapped[Json] = mapped_column(default=dict)
    """Of the architecture: those of the newest version, as is the schema."""
    buffers: Mapped[list[str]] = mapped_column(default=list)
    """Ends of the names of tensors that are no parameters: they may hold -inf."""
    schema: Mapped[Json | None]
    """Tensor name -> {"dtype", "shape"}: the schema of the newest version that set one."""
    schema_digest: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)


#: Where a refined version's metrics name the blob of its BatchNorm statistics (see
#: `server.refine.batchnorm`): the next refinement that starts from it unfolds its clone by them.
STATISTICS_BLOB = "statistics_blob"


class Version(Base):
    """An immutable set of weights of a model."""

    __tablename__ = "versions"
    __table_args__ = (
        UniqueConstraint("model_id", "number"),
        UniqueConstraint("model_id", "weights_digest"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int]
    weights_digest: Mapped[str] = mapped_column(String(64), index=True)
    blob: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the safetensors file in the blob store."""
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    schema: Mapped[Json]
    schema_digest: Mapped[str] = mapped_column(String(64))
    arguments: Mapped[Json | None]
    """Of the architecture, as these weights fit it; null for models without one."""
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    """The version that this one was refined or encoded from."""
    approximates_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    """The uploaded version that this lossy result stands for."""
    source: Mapped[str] = mapped_column(String(20))
    """uploaded | refined | encoded"""
    metrics: Mapped[Json] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(default=now)
    removed_at: Mapped[datetime | None]
    """When retention removed the weights; the row, and what history says of it, stay."""
    released_at: Mapped[datetime | None]
    """When the release key signed it; null: devices do not install it (see `server.trust`)."""
    withdrawn_at: Mapped[datetime | None]
    """When it was taken back, for ever."""

    model: Mapped[Model] = relationship()

    @property
    def is_released(self) -> bool:
        """Whether devices may be told to install it."""
        return self.released_at is not None and self.withdrawn_at is None


class Dataset(Base):
    """Labelled images at a URI, known by a fingerprint."""

    __tablename__ = "datasets"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    uri: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(String(64))
    rows: Mapped[int] = mapped_column(BigInteger)
    classes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(default=now)

    keys: Mapped[list[DatasetKey]] = relationship()
    """The key by which it was registered, where that is held to models."""
