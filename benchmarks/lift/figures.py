"""From runs to figures: means with intervals, and the bytes that a curve needs for a lift."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Student's t at 95% for 1, 2, ... degrees of freedom; beyond, as for the last.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
_RESAMPLES = 2000
#: Parts of a family's name that are no size.
_KINDS = ("bit", "coded", "alone", "taught")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A family: mean bytes, mean lift in points, half the width of its 95% interval."""

    family: str
    bytes: float
    lift: float
    half: float
    runs: int

    @property
    def kind(self) -> str:
        """See `kind_of`."""
        return kind_of(self.family)


@dataclass(frozen=True)
class Ratio:
    """The bytes for another family's lift, and how many times fewer: mean curve, 95% interval."""

    bytes: float
    times: float
    least: float
    most: float
    pairs: int


def kind_of(family: str) -> str:
    """The family without its size: `ka`, `ka 4bit`, `lora alone`."""
    method, *rest = family.split("-")
    return " ".join([method, *(part for part in rest if part.endswith(_KINDS))])


def lift(row: Row) -> float:
    """Points of accuracy gained."""
    return 100.0 * (float(row["after"]) - float(row["before"]))


def figures(rows: Iterable[Row]) -> list[Figure]:
    """One a family, in the order in which families first occur."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["family"], []).append(row)
    return [_figure(family, own) for family, own in found.items()]


def _figure(family: str, rows: list[Row]) -> Figure:
    lifts = [lift(row) for row in rows]
    half = math.nan
    if len(lifts) > 1:
        t = _T[min(len(lifts) - 1, len(_T)) - 1]
        half = t * statistics.stdev(lifts) / math.sqrt(len(lifts))
    size = statistics.mean(row["bytes"] for row in rows)
    return Figure(family, size, statistics.mean(lifts), half, len(lifts))


def bytes_at(curve: Iterable[Figure], wanted: float) -> float | None:
    """The bytes for a lift, interpolated in their logarithm; None outside the curve."""
    points = sorted((figure.bytes, figure.lift) for figure in curve)
    for (low, below), (high, above) in itertools.pairwise(points):
        if below <= wanted <= above and below < above:
            share = (wanted - below) / (above - below)
            return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    return None


def ratio(rows: Sequence[Row], theirs: str, ours: str) -> Ratio | None:
    """How many times fewer bytes the families of kind `ours` need for the lift of family `theirs`.

    Only what all of them ran with counts: pairs of an initial model and a seed. The interval comes
    from drawing those pairs anew, with replacement (bootstrap); draws in which the curve does not
    span the lift are left out of it. None where the mean curve does not.
    """
    cells: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        if row["family"] == theirs or kind_of(row["family"]) == ours:
            cells.setdefault((row["model"], row["seed"]), []).append(row)
    most = max((len(own) for own in cells.values()), default=0)
    pairs = [own for own in cells.values() if len(own) == most]
    found = _needed(pairs, theirs)
    if found is None:
        return None
    draw = random.Random(0)
    drawn = (_needed(draw.choices(pairs, k=len(pairs)), theirs) for _ in range(_RESAMPLES))
    times = sorted(has / needs for has, needs in filter(None, drawn))
    edge = round(0.025 * (len(times) - 1))
    has, needs = found
    return Ratio(needs, has / needs, times[edge], times[-1 - edge], len(pairs))


def _needed(pairs: Iterable[list[Row]], theirs: str) -> tuple[float, float] | None:
    """The bytes of `theirs`, and those of the others' curve at the same lift."""
    all_figures = figures(itertools.chain.from_iterable(pairs))
    yardstick = next((f for f in all_figures if f.family == theirs), None)
    if yardstick is None:
        return None
    needed = bytes_at((f for f in all_figures if f.family != theirs), yardstick.lift)
    return None if needed is None else (yardstick.bytes, needed)
