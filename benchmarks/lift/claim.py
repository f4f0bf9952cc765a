"""Half of the dense lift: in how many bytes each kind of update has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.lift.figures import Figure, bytes_at, figures

#: Of the dense lift, and of the dense bytes.
LIFT, BYTES = 0.5, 0.02


@dataclass(frozen=True)
class Need:
    """The bytes of a kind for the wanted lift.

    `exactly` is false where its smallest update has that lift already: then it needs at most these.
    `bytes` is None where none of its updates has it.
    """

    kind: str
    bytes: float | None
    exactly: bool


@dataclass(frozen=True)
class Claim:
    """The dense update, the wanted lift in points, and what each kind needs for that."""

    dense: Figure
    wanted: float
    needs: dict[str, Need]

    @property
    def limit(self) -> float:
        """The bytes that half of the lift may take."""
        return BYTES * self.dense.bytes


def has_dense(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether there is what all else is held against."""
    return any(row["family"] == "dense" for row in rows)


def claim(rows: Sequence[dict[str, Any]]) -> Claim:
    """By the mean curves. Raises StopIteration without a dense run."""
    found = figures(rows)
    dense = next(f for f in found if f.family == "dense")
    wanted = LIFT * dense.lift
    kinds = dict.fromkeys(f.kind for f in found if f.kind not in ("dense", "control"))
    needs = {kind: _need([f for f in found if f.kind == kind], wanted) for kind in kinds}
    return Claim(dense, wanted, needs)


def _need(curve: list[Figure], wanted: float) -> Need:
    smallest = min(curve, key=lambda f: f.bytes)
    if smallest.lift >= wanted:
        return Need(smallest.kind, smallest.bytes, exactly=False)
    return Need(smallest.kind, bytes_at(curve, wanted), exactly=True)
