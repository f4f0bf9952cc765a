"""Tuning: the rate of each method that does best on the held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.lift.candidates import Candidate, at_rate, candidates, tuned_as
from benchmarks.lift.figures import lift

Tune = Callable[[Candidate], dict[str, Any]]


def chosen(families: Iterable[str], tune: Tune) -> dict[str, Candidate]:
    """The best candidate of each family; a family of one is not tried."""
    best: dict[str, float | None] = {}
    for family in families:
        usual = tuned_as(family)
        if usual not in best:
            own = candidates(usual)
            found = max(own, key=lambda c: lift(tune(c))) if len(own) > 1 else own[0]
            best[usual] = found.recipe.get("learning_rate")
    return {family: at_rate(family, best[tuned_as(family)]) for family in families}
