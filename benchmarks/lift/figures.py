"""From runs to figures: means with intervals, and the bytes that a curve needs for a lift."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: Student's t at 95% for 1, 2, ... degrees of freedom; beyond, as for the last.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)


@dataclass(frozen=True)
class Figure:
    """A family: mean bytes, mean lift in points, half the width of its 95% interval."""

    family: str
    bytes: float
    lift: float
    half: float
    runs: int


def lift(row: Mapping[str, Any]) -> float:
    """Points of accuracy gained."""
    return 100.0 * (float(row["after"]) - float(row["before"]))


def figures(rows: Iterable[Mapping[str, Any]]) -> list[Figure]:
    """One a family, in the order in which families first occur."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["family"], []).append(row)
    return [_figure(family, own) for family, own in found.items()]


def _figure(family: str, rows: list[Mapping[str, Any]]) -> Figure:
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
