"""Rollouts as the API shows them; `schemas.py` has how it takes them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from server.rollouts.schemas import PhaseIn, RuleIn, WindowIn


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
                {
                    "phase": 0,
                    "quota": 4,
                    "percent": 10,
                    "soak_seconds": 3600,
                    "admitted": 4,
                    "assignments": {"committed": 4},
                },
            ]
        }
    )

    phase: int
    quota: int = Field(description="Devices that may have been admitted at its end, in all.")
    percent: float | None = Field(
        description="The share of all devices that this is; null: the strategy has none."
    )
    soak_seconds: int = Field(description="How long it is watched after its success.")
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
                    "boxed": 0,
                    "held": {"over_budget": 1},
                    "progress": [
                        {
                            "phase": 0,
                            "quota": 4,
                            "percent": 10,
                            "soak_seconds": 3600,
                            "admitted": 4,
                            "assignments": {"committed": 4},
                        },
                        {
                            "phase": 1,
                            "quota": 40,
                            "percent": 100,
                            "soak_seconds": 0,
                            "admitted": 0,
                            "assignments": {},
                        },
                    ],
                }
            ]
        }
    )

    devices: int = Field(description="Devices that it is for, at this moment.")
    boxed: int = Field(
        description="Further ones, which it leaves out: their updates failed too often in a row."
    )
    held: dict[str, int] = Field(
        description="Reason -> admitted devices to which nothing can be offered now."
    )
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
                    "chain": None,
                    "way": "direct",
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
    chain: list[int] | None = Field(
        description="Ids of the packages of a chain, in order; null: one package, or none."
    )
    way: str | None = Field(
        description="switch | direct | lossless | full | chain; null: nothing was offered."
    )
    size_bytes: int | None = Field(description="What the offer costs.")
    attempts: int = Field(description="Times that it was admitted: more than 1 after a retry.")
    result: str | None = Field(description="Result word of the device's report.")
    error: dict[str, Any] | None
    created_at: datetime
    admitted_at: datetime | None
    reached_at: datetime | None = Field(description="Its first poll since its admission.")
    offered_at: datetime | None
    finished_at: datetime | None
