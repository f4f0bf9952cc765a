"""What the routes of rollouts have in their addresses and queries."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path

RolloutPath = Annotated[int, Path(ge=1, lt=1 << 31, description="Id of the rollout.")]

RolloutState = Literal["ready", "active", "paused", "finished", "aborted"]

#: Those of `states.py`.
AssignmentState = Literal[
    "waiting",
    "idle",
    "offered",
    "downloading",
    "downloaded",
    "reconstituting",
    "staged",
    "swapping",
    "verifying",
    "deferred",
    "timed_out",
    "unreached",
    "committed",
    "rolled_back",
    "failed",
    "aborted",
    "superseded",
]
