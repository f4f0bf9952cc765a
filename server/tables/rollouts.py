"""Rollouts, and what becomes of each device in one."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from server.tables.access import RolloutGroup
from server.tables.fleet import Device
from server.tables.registry import Model, Version
from server.tables.types import Base, Json, now
from server.tables.work import Package


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
    groups: Mapped[list[RolloutGroup]] = relationship()
    """To whose devices it is held; empty: to none."""

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
