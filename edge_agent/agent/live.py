"""What is true only while the agent runs, in a file in memory: `<run_dir>/live.json`.

Nothing depends on it: it is for `edge-agent status`, for figures and for people. What must outlive
the agent is in journals and reports.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_agent.agent.loop import Agent
from edge_agent.config import Config
from shared.wire import State


class LiveModel(BaseModel):
    """`held`: why the server lets an update wait. `ended`: how often updates ended in a state."""

    model_config = ConfigDict(frozen=True)
    held: str | None = None
    ended: dict[State, int] = {}


class Live(BaseModel):
    """Unix times, and counts since the start of the agent that works in `state_dir`.

    `held`: why the server offers the device nothing at all.
    """

    model_config = ConfigDict(frozen=True)
    format: Literal[1] = 1
    state_dir: Path
    started_at: float
    polled_at: float | None = None
    answered_at: float | None = None
    polls: int = 0
    answers: int = 0
    traffic_bytes: int = 0
    held: str | None = None
    models: dict[str, LiveModel] = {}

    @classmethod
    def of(cls, agent: Agent, config: Config) -> Live:
        """What is so now."""
        polls = agent.polls
        return cls(
            state_dir=config.state_dir,
            started_at=agent.started_at,
            polled_at=polls.asked_at,
            answered_at=polls.answered_at,
            polls=polls.asked,
            answers=polls.answered,
            traffic_bytes=agent.traffic_bytes,
            held=agent.hold,
            models={
                name: LiveModel(held=update.hold, ended=dict(update.ended))
                for name, update in agent.updates.items()
            },
        )


def live_file(config: Config) -> Path:
    """Where it lies."""
    return config.run_dir / "live.json"


def load_live(config: Config) -> Live | None:
    """What the agent of these settings has left there last; None where there is nothing of it."""
    try:
        found = Live.model_validate_json(live_file(config).read_bytes())
    except (OSError, ValidationError):
        return None
    return found if found.state_dir == config.state_dir else None
