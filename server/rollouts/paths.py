"""What the routes of rollouts have in their addresses."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

RolloutPath = Annotated[int, Path(ge=1, lt=1 << 31, description="Id of the rollout.")]
