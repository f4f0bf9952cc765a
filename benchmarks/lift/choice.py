"""Tuning: of each family the candidate that does best on the held-out rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.lift.candidates import Candidate
from benchmarks.lift.figures import lift

Tune = Callable[[Candidate], dict[str, Any]]


def chosen(families: dict[str, list[Candidate]], tune: Tune) -> dict[str, Candidate]:
    """The best of each family; a family of one is not tried."""
    return {
        family: max(candidates, key=lambda c: lift(tune(c)))
        if len(candidates) > 1
        else candidates[0]
        for family, candidates in families.items()
    }
