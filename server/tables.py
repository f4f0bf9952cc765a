"""All tables, in one place: what the server knows and how it hangs together.

    models ─┬─ versions ─┬─ refinements (base -> target, on a dataset)
            │            ├─ packages    (base -> target, or full)
            │            └─ rollouts ──── assignments ─┐
               device_models ──────────── devices ─────┘
    events: what happened to any of them, append-only

Digests are lower-case hex. Status strings are lower_snake text, never enum ordinals. Weights and
packages themselves lie in the blob store, under the SHA-256 of the file (`blob`, `sha256`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

Json = dict[str, Any]


def now() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(UTC)


class Moment(TypeDecorator[datetime]):
    """A moment in UTC: SQLite forgets the zone, so it is taken off and put back here."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002, D102
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002, D102
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """What the tables share: names for constraints, and column types by annotation."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's declarative interface
        datetime: Moment(),
        Json: JSON(none_as_null=True),
        list[str]: JSON(none_as_null=True),
    }


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

    model: Mapped[Model] = relationship()


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
    error: Mapped[Json | None]
    """{"code", "message", "todo"}"""
    attempts: Mapped[int] = mapped_column(default=0)
    target_version_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    package_id: Mapped[int | None] = mapped_column(ForeignKey("packages.id"))
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
    """An update package in the blob store. State: built | published."""

    __tablename__ = "packages"
    __table_args__ = (Index("ix_packages_target_version_id_state", "target_version_id", "state"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), index=True)
    base_version_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    """Null: `full`, which needs no base."""
    target_version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"))
    method: Mapped[str] = mapped_column(String(40))
    options: Mapped[Json] = mapped_column(default=dict)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    learnable_count: Mapped[int | None] = mapped_column(BigInteger)
    metrics: Mapped[Json] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(String(20), default="built")
    created_at: Mapped[datetime] = mapped_column(default=now)

    model: Mapped[Model] = relationship()
    base_version: Mapped[Version | None] = relationship(foreign_keys=[base_version_id])
    target_version: Mapped[Version] = relationship(foreign_keys=[target_version_id])


class Device(Base):
    """An enrolled device."""

    __tablename__ = "devices"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    generation: Mapped[int] = mapped_column(BigInteger, default=1)
    """Bumped by whatever changes the device's desired state; its ETag."""
    report_counter: Mapped[int] = mapped_column(BigInteger, default=0)
    report_digest: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of the last report's bytes: the same counter must bring the same bytes."""
    capabilities: Mapped[Json] = mapped_column(default=dict)
    last_seen_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)

    models: Mapped[list[DeviceModel]] = relationship(back_populates="device")


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


class Rollout(Base):
    """The movement of a set of devices to a version. State: active | finished | aborted."""

    __tablename__ = "rollouts"
    __table_args__ = (Index("ix_rollouts_model_id_state", "model_id", "state"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"))
    state: Mapped[str] = mapped_column(String(20), default="active")
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]

    model: Mapped[Model] = relationship()
    version: Mapped[Version] = relationship()


OPEN = "finished_at IS NULL"


class Assignment(Base):
    """One device in one rollout; open until `finished_at`, one open per device and model."""

    __tablename__ = "assignments"
    __table_args__ = (
        UniqueConstraint("rollout_id", "device_id"),
        Index(
            "uq_assignments_open",
            "device_id",
            "model_id",
            unique=True,
            sqlite_where=text(OPEN),
            postgresql_where=text(OPEN),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    rollout_id: Mapped[int] = mapped_column(ForeignKey("rollouts.id"))
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), index=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    state: Mapped[str] = mapped_column(String(20), default="idle")
    held: Mapped[str | None] = mapped_column(String(40))
    """Why nothing is offered yet, as the planner put it at the device's last poll."""
    package_id: Mapped[int | None] = mapped_column(ForeignKey("packages.id"))
    error: Mapped[Json | None]
    result: Mapped[str | None] = mapped_column(String(20))
    created_at: Mapped[datetime] = mapped_column(default=now)
    offered_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    rollout: Mapped[Rollout] = relationship()
    device: Mapped[Device] = relationship()
    package: Mapped[Package | None] = relationship()


class Event(Base):
    """Something that happened; append-only. The ids outlive what they name."""

    __tablename__ = "events"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    at: Mapped[datetime] = mapped_column(default=now)
    kind: Mapped[str] = mapped_column(String(60), index=True)
    model_id: Mapped[int | None] = mapped_column(index=True)
    version_id: Mapped[int | None] = mapped_column(index=True)
    package_id: Mapped[int | None]
    refinement_id: Mapped[int | None] = mapped_column(index=True)
    device_id: Mapped[str | None] = mapped_column(String(36), index=True)
    rollout_id: Mapped[int | None] = mapped_column(index=True)
    assignment_id: Mapped[int | None]
    data: Mapped[Json] = mapped_column(default=dict)


class IdempotencyKey(Base):
    """The answer once given to a create, to be given again for the same key and request."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    method: Mapped[str] = mapped_column(String(10), primary_key=True)
    path: Mapped[str] = mapped_column(String(300), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    body: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now)
