"""Tuning: the rate of each method that does best on the held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.lift.candidates import Candidate, at_rate, candidates, tuned_as
from benchmarks.lift.figures import lift

Tune = Callable[[Candidate], dict[str, Any]]

#: How much farther the next rate lies where an end of the grid does best, and how often at most.
_FARTHER, _TIMES = 3.0, 2


def chosen(families: Iterable[str], tune: Tune) -> dict[str, Candidate]:
    """The best candidate of each family; a family of one is not tried."""
    best: dict[str, float | None] = {}
    for family in families:
        usual = tuned_as(family)
        if usual not in best:
            best[usual] = _best_rate(usual, tune)
    return {family: at_rate(family, best[tuned_as(family)]) for family in families}


def _best_rate(family: str, tune: Tune) -> float | None:
    own = candidates(family)
    if len(own) == 1:
        return None
    lifts = {_rate(candidate): lift(tune(candidate)) for candidate in own}
    for _ in range(_TIMES):
        best = max(lifts, key=lambda rate: lifts[rate])
        if best == max(lifts):
            farther = at_rate(family, best * _FARTHER)
        elif best == min(lifts):
            farther = at_rate(family, best / _FARTHER)
        else:
            break
        lifts[_rate(farther)] = lift(tune(farther))
    return max(lifts, key=lambda rate: lifts[rate])


def _rate(candidate: Candidate) -> float:
    return float(candidate.recipe["learning_rate"])
