"""What `auto` has measured: accuracy against bytes, a point for each package that was made."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from server.publish.budget.goal import Goal

#: In the folder of the refinement.
CURVE = "curve.json"

#: Where a line is nearly flat, it leads beyond what a float holds.
_MOST_LOG = 60.0


class Point(BaseModel):
    """A package that was made. Accuracies are shares (0 to 1), of the decoded weights after it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trial: int = Field(description="Number of the training that it comes from, from 1.")
    method: str
    options: dict[str, Any]
    matrices: bool = Field(True, description="False: biases and BatchNorm only.")
    rate: float = Field(1.0, description="Factor on the learning rate of matrices.")
    fitted: bool = Field(
        False, description="What mattered least was left out of the trained change, to fit."
    )
    bytes: int = Field(description="Of the package file.")
    accuracy_before: float
    accuracy_after: float
    epochs: int = Field(description="That were trained for it.")
    seconds: float
    chosen: bool = False


class Shortfall(BaseModel):
    """Why nothing was published, and what to do about it."""

    code: str
    message: str
    todo: str


class Curve(BaseModel):
    """All points in the order in which they were measured, and what they cost."""

    model_config = ConfigDict(extra="forbid")

    goal: Goal
    least_bytes: int = Field(description="Of a package that changes nothing: none is smaller.")
    points: list[Point] = Field(default_factory=list)
    images: int | None = Field(None, description="On which each accuracy was measured.")
    epochs: int = Field(0, description="That were trained in all.")
    refinements: float = Field(0.0, description="The same, in refinements of the recipe.")
    seconds: float = Field(0.0, description="Of all trials, with coding and measuring.")
    failure: Shortfall | None = None


def envelope(points: Iterable[Point]) -> list[tuple[int, float]]:
    """(bytes, accuracy) of the points that no smaller one equals, by bytes."""
    best: list[tuple[int, float]] = []
    for point in sorted(points, key=lambda p: (p.bytes, -p.accuracy_after)):
        if not best or point.accuracy_after > best[-1][1]:
            best.append((point.bytes, point.accuracy_after))
    return best


def bytes_between(low: tuple[float, float], high: tuple[float, float], wanted: float) -> float:
    """The bytes for an accuracy on the line through two points (bytes, accuracy), in log bytes."""
    share = (wanted - low[1]) / (high[1] - low[1])
    return math.exp(min(math.log(low[0]) + share * math.log(high[0] / low[0]), _MOST_LOG))


def read_curve(folder: Path) -> Curve | None:
    """The curve in the folder of a refinement, if it has one."""
    path = folder / CURVE
    return Curve.model_validate_json(path.read_bytes()) if path.exists() else None
