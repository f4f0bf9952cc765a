"""All tables, in one place: what the server knows and how it hangs together.

    models ─┬─ versions ─┬─ refinements (base -> target, on a dataset)
            │            ├─ packages    (base -> target, or full)
            │            └─ rollouts ──── assignments ─┐
               device_models ──────────── devices ─────┘
                        runs ─────────────┘ └─ device_tags       groups: saved filters over devices
    events: what happened to any of them, append-only ── webhooks ── deliveries
    leases, installation: what several server processes, and a restore, need to agree on

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
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.sql.functions import FunctionElement
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
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class transaction_number(FunctionElement[int]):  # noqa: N801 - reads as an SQL function
    """The number of the transaction under way: PostgreSQL's, or 0."""

    inherit_cache = True
    type = BigInteger()


@compiles(transaction_number)
def _no_number(_element: object, _compiler: object, **_: object) -> str:
    return "0"


@compiles(transaction_number, "postgresql")
def _its_number(_element: object, _compiler: object, **_: object) -> str:
    return "pg_current_xact_id()::text::bigint"


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
        list[int]: JSON(none_as_null=True),
        list[Json]: JSON(none_as_null=True),
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


class Device(Base):
    """An enrolled device."""

    __tablename__ = "devices"
    __table_args__ = (
        Index("ix_devices_name", "name"),
        Index("ix_devices_created_at", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
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


class Rollout(Base):
    """The movement of a set of devices to a version.

    State: ready | active | paused | finished | aborted.
    """

    __tablename__ = "rollouts"
    __table_args__ = (
        Index("ix_rollouts_model_id_state", "model_id", "state"),
        Index("ix_rollouts_state_due_at", "state", "due_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"))
    state: Mapped[str] = mapped_column(String(20), default="active")
    filter: Mapped[str | None] = mapped_column(Text)
    """Which devices; null: all that run the model."""
    strategy: Mapped[str] = mapped_column(String(40), default="staged")
    """Who decides what comes next: a name of `rollouts.strategies`."""
    phases: Mapped[list[Json]] = mapped_column(default=list)
    """[{"percent", "soak_seconds"}], percent cumulative, the last one 100."""
    max_open: Mapped[int | None]
    """Most devices that are updating at the same time."""
    success_percent: Mapped[float] = mapped_column(default=100.0)
    """Share of a phase that must have committed before the next one begins."""
    abort_rules: Mapped[list[Json]] = mapped_column(default=list)
    """[{"kind": "failed" | "timed_out" | "unreached", "percent", "min_count"}]"""
    deadline_seconds: Mapped[int] = mapped_column(default=86_400)
    """From the offer: silent until then is `timed_out`. From the admission: `unreached`."""
    window: Mapped[Json | None]
    """{"cron", "duration_seconds", "time_zone"}: updates are offered only then."""
    rollback: Mapped[bool] = mapped_column(default=False)
    """Whether it may lead to a version older than the one in use."""
    rolls_back_id: Mapped[int | None]
    """The rollout whose devices this one takes back."""
    phase: Mapped[int] = mapped_column(default=0)
    """Index of the phase that it is in."""
    phase_done_at: Mapped[datetime | None]
    """When the phase reached its success share; its soak time is counted from here."""
    due_at: Mapped[datetime | None]
    """When it must be looked at next; null: not until something happens to it."""
    revision: Mapped[int] = mapped_column(default=0)
    """Raised by every decision: of two evaluators that decided from one snapshot, one wins."""
    reason: Mapped[Json | None]
    """Why it was aborted or what it waits for: {"code", "message"}."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    model: Mapped[Model] = relationship()
    version: Mapped[Version] = relationship()

    @property
    def takes_every_device(self) -> bool:
        """Whether it leaves no device of the model to rollouts that were started before."""
        return self.filter is None and self.rolls_back_id is None


OPEN = "finished_at IS NULL"


class Assignment(Base):
    """One device in one rollout; open until `finished_at`, one open per device and model."""

    __tablename__ = "assignments"
    __table_args__ = (
        UniqueConstraint("rollout_id", "device_id"),
        Index("ix_assignments_rollout_id_state", "rollout_id", "state"),
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
    phase: Mapped[int] = mapped_column(default=0)
    """Index of the rollout's phase in which the device was admitted."""
    state: Mapped[str] = mapped_column(String(20), default="idle")
    held: Mapped[str | None] = mapped_column(String(40))
    """Why nothing is offered yet, as the planner put it at the device's last poll."""
    held_detail: Mapped[Json | None]
    """The figures of the reason: {"bytes", "budget"} of `over_budget`, and the like."""
    package_id: Mapped[int | None] = mapped_column(ForeignKey("packages.id"))
    """The package that leads to the version: of a chain, the last one."""
    chain: Mapped[list[int] | None]
    """Ids of all packages of a chain, first to last; null: one package or none."""
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """What the offer costs: bytes of all its packages."""
    from_digest: Mapped[str | None] = mapped_column(String(64))
    """The weights that the device had in use when it was admitted."""
    attempts: Mapped[int] = mapped_column(default=1)
    error: Mapped[Json | None]
    result: Mapped[str | None] = mapped_column(String(20))
    created_at: Mapped[datetime] = mapped_column(default=now)
    admitted_at: Mapped[datetime | None]
    """When the deadline began to run for a device that is silent; later than `created_at` where
    an operator had it tried again."""
    reached_at: Mapped[datetime | None]
    """The device's first poll since its admission."""
    offered_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    rollout: Mapped[Rollout] = relationship()
    device: Mapped[Device] = relationship()
    package: Mapped[Package | None] = relationship()


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


class Lease(Base):
    """A duty that one process at a time has, as long as it renews."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    holder: Mapped[str] = mapped_column(String(100))
    until: Mapped[datetime]


class Installation(Base):
    """The database itself, in one row: `epoch` changes when a backup is restored into it."""

    __tablename__ = "installation"

    id: Mapped[int] = mapped_column(primary_key=True)
    epoch: Mapped[str] = mapped_column(String(16))
    """Part of every ETag of the device plane: generations of before a restore mean nothing."""


def _give_no_id_twice() -> None:
    """Have SQLite count ids as PostgreSQL does: what anybody has seen keeps its meaning."""
    for table in Base.metadata.tables.values():
        if table.autoincrement_column is not None and table is not Installation.__table__:
            table.dialect_options["sqlite"]["autoincrement"] = True


_give_no_id_twice()
