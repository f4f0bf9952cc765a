"""Rollouts as the API takes them; `answers.py` has how it shows them."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

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
        description=" ".join(f"`{name}`: {way.about}." for name, way in STRATEGIES.items()),
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
