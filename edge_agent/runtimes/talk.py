"""What agent and program say to each other: one line of JSON each, on a connection of its own.

The agent sends an `Ask`, the program answers with an `Answer`. Both are of this package, in one
version or another, so `weft` counts: a program refuses a question that it does not know.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from edge_agent.runtimes.base import Verdict, Weights
from shared.golden import Golden
from shared.wire import Fault, Health

FORMAT = 1
MAX_LINE_BYTES = 1 << 16

Verb: TypeAlias = Literal["prepare", "swap", "verify", "confirm", "revert"]


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Named(_Message):
    """`base.Weights` as it travels."""

    path: Path
    digest: str
    version: int | None = None
    ready: bool = True

    @classmethod
    def of(cls, weights: Weights) -> Named:
        """For sending, to a program that may be in another directory."""
        return cls(**vars(weights) | {"path": weights.path.absolute()})

    def weights(self) -> Weights:
        """As received."""
        return Weights(self.path, self.digest, self.version, self.ready)


class Ask(_Message):
    """One call of the contract. `weights` is null only to go back to nothing."""

    weft: int = FORMAT
    do: Verb
    model: str
    weights: Named | None = None
    golden: Golden | None = None
    seconds: float = Field(gt=0, description="How long the agent waits for the answer.")


class Judged(_Message):
    """`base.Verdict` as it travels."""

    health: Health
    digest: str | None = None
    message: str = ""

    def verdict(self) -> Verdict:
        """As received."""
        return Verdict(self.health, self.digest, self.message)


class Answer(_Message):
    """What came of it; nothing is said of what went well and has no verdict."""

    verdict: Judged | None = None
    fault: Fault | None = None

    def line(self) -> bytes:
        """For sending."""
        return self.model_dump_json(exclude_none=True).encode() + b"\n"
