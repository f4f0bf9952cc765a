"""Rollouts as the API takes and shows them."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from server.rollouts import windows
from server.rollouts.strategies import STRATEGIES
from server.rollouts.strategies.base import Kind
from server.tables import Rollout
from shared.wire import ModelName

DAY = 86_400
#: A device may be switched off for long, but not for ever.
LONGEST_DEADLINE = 365 * DAY
MOST_PHASES = 50

Percent = Annotated[float, Field(gt=0, le=100)]


def _cron(text: str) -> str:
    windows.check_cron(text)
    return text


def _zone(name: str) -> str:
    windows.check_zone(name)
    return name


class PhaseIn(BaseModel):
    """A share of the devices, and how long to watch them before the next ones follow."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"percent": 10, "soak_seconds": 3600}]},
    )

    percent: Percent = Field(description="Of all devices, with those of the phases before.")
    soak_seconds: int = Field(
        0, ge=0, le=30 * DAY, description="From the moment that its devices have succeeded."
    )


class RuleIn(BaseModel):
    """When to abort: at this share of bad ends, if there are enough of them."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"kind": "failed", "percent": 20, "min_count": 3}]},
    )

    kind: Kind = Field(
        description="`failed`: refused, rolled back or timed out; `timed_out`: only those; "
        "`unreached`: never heard of since the admission."
    )
    percent: Percent = Field(
        description="Of the devices that have ended; for `unreached`, of those admitted."
    )
    min_count: int = Field(3, ge=1, description="Fewer than so many of the kind abort nothing.")


class WindowIn(BaseModel):
    """When updates may be offered."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"cron": "0 2 * * *", "duration_seconds": 14400, "time_zone": "Europe/Berlin"}
            ]
        },
    )

    cron: Annotated[str, AfterValidator(_cron)] = Field(
        max_length=100, description="When it opens: minute, hour, day, month, weekday."
    )
    duration_seconds: int = Field(ge=60, le=7 * DAY, description="How long it stays open.")
    time_zone: Annotated[str, AfterValidator(_zone)] = Field(
        "UTC", max_length=60, description="Name of the time zone that `cron` is in."
    )


def _one_phase() -> list[PhaseIn]:
    return [PhaseIn(percent=100)]


def _usual_rules() -> list[RuleIn]:
    return [RuleIn(kind="failed", percent=20, min_count=3)]


class RolloutIn(BaseModel):
    """A rollout: which devices go to which version, how fast, and when to stop."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "model": "digits",
                    "version": 2,
                    "filter": "tag==line3;attr.gpu==orin",
                    "phases": [
                        {"percent": 10, "soak_seconds": 3600},
                        {"percent": 100, "soak_seconds": 0},
                    ],
                    "max_open": 50,
                    "success_percent": 95,
                    "abort_rules": [{"kind": "failed", "percent": 20, "min_count": 5}],
                    "deadline_seconds": 86400,
                    "window": {
                        "cron": "0 2 * * *",
                        "duration_seconds": 14400,
                        "time_zone": "Europe/Berlin",
                    },
                }
            ]
        },
    )

    model: ModelName
    version: int = Field(ge=1, lt=1 << 31, description="Number of the version.")
    filter: str | None = Field(
        None, min_length=1, description="Which devices (RSQL); null: all that run the model."
    )
    strategy: str = Field(
        "staged",
        json_schema_extra={"enum": list(STRATEGIES)},
        description="`staged`: by `phases`. `doubling`: 1, 2, 4, 8... devices, each time watched "
        "for the soak time of the first phase.",
    )
    phases: list[PhaseIn] = Field(
        default_factory=_one_phase,
        min_length=1,
        max_length=MOST_PHASES,
        description="Percentages rise, the last one is 100. Default: all devices at once.",
    )
    max_open: int | None = Field(
        None, ge=1, lt=1 << 31, description="Most devices updating at a time; null: any number."
    )
    success_percent: float = Field(
        90,
        ge=0,
        le=100,
        description="Share that must have committed before the next phase begins.",
    )
    abort_rules: list[RuleIn] = Field(
        default_factory=_usual_rules,
        max_length=20,
        description="Default: 20% failed, at least 3. An empty list: never by itself.",
    )
    deadline_seconds: int = Field(
        DAY,
        ge=1,
        le=LONGEST_DEADLINE,
        description="From its offer, until a silent device has timed out; from its admission, "
        "until one that never came is unreached.",
    )
    window: WindowIn | None = Field(None, description="Default: offered at any time.")
    rollback: bool = Field(False, description="Whether it may lead devices to an older version.")
    start: bool = Field(True, description="False: it is `ready`, and waits to be started.")

    @model_validator(mode="after")
    def _phases_rise_to_100(self) -> RolloutIn:
        percents = [phase.percent for phase in self.phases]
        if percents[-1] != 100 or any(a >= b for a, b in pairwise(percents)):
            raise ValueError("phases: percentages must rise from one to the next, up to 100")
        if self.strategy not in STRATEGIES:
            raise ValueError(f"strategy: one of {', '.join(STRATEGIES)}")
        return self

    def as_row(self, model_id: int, version_id: int) -> Rollout:
        """The rollout as it is stored."""
        kept = self.model_dump(exclude={"model", "version", "start"})
        return Rollout(model_id=model_id, version_id=version_id, **kept)


class ReasonOut(BaseModel):
    """Why a rollout waits, or was aborted."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"code": "updating", "message": "devices are updating"}]}
    )

    code: str
    message: str


SHOWN: dict[str, Any] = {
    "id": 2,
    "model": "digits",
    "version": 2,
    "state": "active",
    "assignments": {"committed": 1, "offered": 1},
    "phase": 0,
    "phase_done_at": None,
    "reason": {"code": "updating", "message": "devices are updating"},
    "filter": None,
    "strategy": "staged",
    "phases": [{"percent": 10, "soak_seconds": 3600}, {"percent": 100, "soak_seconds": 0}],
    "max_open": None,
    "success_percent": 90,
    "abort_rules": [{"kind": "failed", "percent": 20, "min_count": 3}],
    "deadline_seconds": 86400,
    "window": None,
    "rollback": False,
    "rolls_back_id": None,
    "created_at": "2026-03-01T10:12:00Z",
    "started_at": "2026-03-01T10:12:00Z",
    "finished_at": None,
}


class RolloutOut(BaseModel):
    """A rollout, with its assignments counted by state."""

    model_config = ConfigDict(json_schema_extra={"examples": [SHOWN]})

    id: int
    model: str
    version: int
    state: str = Field(description="ready | active | paused | finished | aborted")
    assignments: dict[str, int] = Field(description="State -> number of devices.")
    phase: int = Field(description="Index in `phases`, from 0; with `doubling`, of doublings.")
    phase_done_at: datetime | None = Field(description="When the phase's soak time began.")
    reason: ReasonOut | None = Field(description="Why it waits, or was aborted.")
    filter: str | None
    strategy: str
    phases: list[PhaseIn]
    max_open: int | None
    success_percent: float
    abort_rules: list[RuleIn]
    deadline_seconds: int
    window: WindowIn | None
    rollback: bool
    rolls_back_id: int | None = Field(description="The rollout whose devices this one takes back.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class PhaseOut(BaseModel):
    """What has become of the devices that were admitted in one phase."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"phase": 0, "quota": 4, "admitted": 4, "assignments": {"committed": 4}},
            ]
        }
    )

    phase: int
    quota: int = Field(description="Devices that may have been admitted at its end, in all.")
    admitted: int = Field(description="Devices that were admitted in it.")
    assignments: dict[str, int] = Field(description="State -> number of them.")


class RolloutDetailOut(RolloutOut):
    """A rollout, with its phases one by one."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                SHOWN
                | {
                    "devices": 40,
                    "progress": [
                        {"phase": 0, "quota": 4, "admitted": 4, "assignments": {"committed": 4}},
                        {"phase": 1, "quota": 40, "admitted": 0, "assignments": {}},
                    ],
                }
            ]
        }
    )

    devices: int = Field(description="Devices that it is for, at this moment.")
    progress: list[PhaseOut]


class AssignmentOut(BaseModel):
    """One device in one rollout."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": 3,
                    "rollout": 2,
                    "device_id": "0b9e1c9e-5b0c-4a55-9a0e-6a8e7f3f1c11",
                    "device": "line3-cam1",
                    "phase": 0,
                    "state": "committed",
                    "held": None,
                    "held_detail": None,
                    "package": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "size_bytes": 9211,
                    "attempts": 1,
                    "result": "committed",
                    "error": None,
                    "created_at": "2026-03-01T10:12:00Z",
                    "admitted_at": "2026-03-01T10:12:00Z",
                    "reached_at": "2026-03-01T10:12:20Z",
                    "offered_at": "2026-03-01T10:12:20Z",
                    "finished_at": "2026-03-01T10:12:22Z",
                }
            ]
        }
    )

    id: int
    rollout: int
    device_id: str
    device: str = Field(description="Name of the device.")
    phase: int = Field(description="Index of the phase in which it was admitted.")
    state: str
    held: str | None = Field(description="Why nothing is offered yet.")
    held_detail: dict[str, Any] | None = Field(description="The figures of that.")
    package: str | None = Field(description="SHA-256 of the package; null: 0 bytes needed.")
    size_bytes: int | None = Field(description="What the offer costs.")
    attempts: int = Field(description="Times that it was admitted: more than 1 after a retry.")
    result: str | None = Field(description="Result word of the device's report.")
    error: dict[str, Any] | None
    created_at: datetime
    admitted_at: datetime | None
    reached_at: datetime | None = Field(description="Its first poll since its admission.")
    offered_at: datetime | None
    finished_at: datetime | None


class RetryIn(BaseModel):
    """Which devices to try once more."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"device_id": None}]})

    device_id: str | None = Field(
        None, max_length=36, description="One device; null: all that failed."
    )


class RollBackIn(BaseModel):
    """Where to take the devices."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 1}]})

    version: int | None = Field(
        None,
        ge=1,
        lt=1 << 31,
        description="Number of the version; null: the one that most of them had before.",
    )
