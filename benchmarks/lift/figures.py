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
#: An initial model and a seed.
Pair = tuple[int, int]


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
    """The bytes for one lift, and how many times fewer ours are: mean curves, 95% interval.

    `least` is 0 where ours may not reach the lift, `most` infinite where theirs may not.
    """

    theirs: float
    ours: float
    least: float
    most: float
    pairs: int

    @property
    def times(self) -> float:
        """How many times fewer."""
        return self.theirs / self.ours


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


def envelope(curve: Iterable[Figure]) -> list[Figure]:
    """By size, without those that lift no more than a smaller one: nobody would send them."""
    found: list[Figure] = []
    for figure in sorted(curve, key=lambda figure: figure.bytes):
        if not found or figure.lift > found[-1].lift:
            found.append(figure)
    return found


def bytes_at(curve: Iterable[Figure], wanted: float) -> float | None:
    """The bytes for a lift, interpolated in their logarithm; None outside the curve's envelope."""
    for low, high in itertools.pairwise(envelope(curve)):
        if low.lift <= wanted <= high.lift:
            share = (wanted - low.lift) / (high.lift - low.lift)
            return low.bytes * math.pow(high.bytes / low.bytes, share)
    return None


def ratio(theirs: Sequence[Row], ours: Sequence[Row], wanted: float | None = None) -> Ratio | None:
    """How many times fewer bytes `ours` need for a lift; by default that of `theirs`, one family.

    Only what all of them ran with counts: pairs of an initial model and a seed. The interval comes
    from drawing those pairs anew, with replacement (bootstrap); the smallest size serves where all
    of a curve lies above the lift. None where a mean curve does not span it.
    """
    pairs = sorted(_whole(theirs) & _whole(ours))
    a, b, goal = _curves(theirs, ours, pairs, wanted)
    has = a[0].bytes if wanted is None and a else bytes_at(a, goal)
    needs = bytes_at(b, goal)
    if has is None or needs is None:
        return None
    draw = random.Random(0)
    drawn = (draw.choices(pairs, k=len(pairs)) for _ in range(_RESAMPLES))
    times = sorted(_times(*_curves(theirs, ours, chosen, wanted)) for chosen in drawn)
    edge = round(0.025 * (len(times) - 1))
    return Ratio(has, needs, times[edge], times[-1 - edge], len(pairs))


def _whole(rows: Iterable[Row]) -> set[Pair]:
    """The pairs that every family ran with."""
    found: dict[Pair, set[str]] = {}
    for row in rows:
        found.setdefault((row["model"], row["seed"]), set()).add(row["family"])
    most = max((len(families) for families in found.values()), default=0)
    return {pair for pair, families in found.items() if len(families) == most}


def _curves(
    theirs: Iterable[Row], ours: Iterable[Row], pairs: Sequence[Pair], wanted: float | None
) -> tuple[list[Figure], list[Figure], float]:
    """Both over these pairs, one of which may stand there twice; and the lift."""
    a, b = (
        figures(row for pair in pairs for row in rows if (row["model"], row["seed"]) == pair)
        for rows in (list(theirs), list(ours))
    )
    return a, b, (a[0].lift if a else math.nan) if wanted is None else wanted


def _times(theirs: list[Figure], ours: list[Figure], wanted: float) -> float:
    needs = _reached(ours, wanted)
    return 0.0 if math.isinf(needs) else _reached(theirs, wanted) / needs


def _reached(curve: list[Figure], wanted: float) -> float:
    """The bytes for a lift: the smallest where all are above it, infinite where none is."""
    within = bytes_at(curve, wanted)
    if within is not None:
        return within
    smallest = min(curve, key=lambda figure: figure.bytes)
    return smallest.bytes if smallest.lift >= wanted else math.inf
