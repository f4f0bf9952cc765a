"""What may be asked of the accuracy of a lossy package; `measuring` finds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.errors import BadUpdate


@dataclass(frozen=True)
class Gate:
    """What is asked of a result. `max_drop` in percentage points, `min_accuracy` in percent.

    `uri` and `fingerprint` are those of the registered dataset `name`. Without thresholds the
    figures are only kept.
    """

    name: str
    uri: str
    fingerprint: str
    max_drop: float | None = None
    min_accuracy: float | None = None

    def check(self, target: float, decoded: float) -> None:
        """Raise BadUpdate `below_accuracy`; both are shares of images, from 0 to 1."""
        found = f"{decoded:.2%} of {self.name} with the decoded weights, {target:.2%} with the"
        drop = (target - decoded) * 100
        if self.max_drop is not None and drop > self.max_drop:
            told = f"{found} target: {drop:.2f} points less, allowed are {self.max_drop:g}"
            raise BadUpdate("below_accuracy", told)
        if self.min_accuracy is not None and decoded * 100 < self.min_accuracy:
            told = f"{found} target; asked for are {self.min_accuracy:g}%"
            raise BadUpdate("below_accuracy", told)


@dataclass(frozen=True)
class Samples:
    """Golden samples that are asked for: of a `shape`, or the first rows of a dataset."""

    count: int
    shape: tuple[int, ...] = ()
    uri: str = ""
    fingerprint: str = ""


@dataclass(frozen=True)
class Subject:
    """What is measured: an architecture of the zoo (or an own one), with its arguments."""

    architecture: str
    arguments: Mapping[str, Any]
