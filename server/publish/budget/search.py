"""What to try next, and which package to choose: from the goal and what was measured. Pure.

With a size alone: a training that aims at it; one or two that correct the aim where it missed; the
same at another learning rate; then a quarter of the size, to show what fewer bytes would bring.
With an accuracy: between the smallest size that reached it and the largest below that did not,
where the line between the two reaches it, in the logarithm of bytes. A package that is too large,
but not by far, is fitted, which needs no training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from server.publish.budget.curve import Point, bytes_between
from server.publish.budget.goal import Goal
from server.publish.budget.tiers import (
    DIRECT,
    GAINS,
    Facts,
    Trial,
    dense_within,
    overhead,
    trial_for,
)

#: A package up to so many times too large is fitted: that takes no training.
_FITTABLE = 1.3
#: A size is used up by a package of this share of it; after so many trainings that aimed at it.
_FULL = {1: 0.93, 2: 0.8}
#: Of what a training gained, the share that its fitted package must keep to count as a use of the
#: size: one that leaves out much more than a few symbols loses nearly all.
_KEPT = 0.75
#: What a search takes at most, in trainings, but for a fit that is the only way to a package.
_MOST = 5.0
#: What the first fit is taken to need, in trainings.
_FIT = 0.25
#: The second learning rate, as a share of the first.
_SLOWER = 0.4
#: The small point of a curve, as a share of the size.
_SMALL = 1 / 4
#: Bits of a weight with which the search for an accuracy begins.
_FIRST_BITS = 1 / 8
#: Sizes that differ by less than this factor need no point between them.
_CLOSE = 1.15
#: How near to either end the next point may lie, in shares of the way; factors upwards.
_EDGE = 0.15
_UP = (2.0, 16.0)


@dataclass(frozen=True)
class Train:
    """Train this."""

    trial: Trial


@dataclass(frozen=True)
class Fit:
    """Make the package of that training fit."""

    trial: int


def next_step(goal: Goal, facts: Facts, points: Sequence[Point]) -> Train | Fit | None:
    """What to do after these points; None: choose."""
    trained = [p for p in points if not p.fitted]
    fitted = {p.trial for p in points if p.fitted}
    loose = [p for p in trained if not goal.allows(p.bytes) and p.trial not in fitted]
    for point in loose:
        near = point.bytes <= _FITTABLE * (goal.max_bytes or 0)
        if near and goal.is_reached(point.accuracy_after) and _has_time(goal, points):
            return Fit(point.trial)
    if len(trained) < goal.trials:
        trial = _next_trial(goal, facts, points)
        if trial is not None and trial not in [trial_of(p) for p in trained]:
            return Train(trial)
    if loose and not any(goal.allows(p.bytes) for p in points):
        return Fit(min(loose, key=lambda p: p.bytes).trial)
    return None


def choose(goal: Goal, points: Sequence[Point]) -> Point | None:
    """The most accurate within the size; with an accuracy asked for, the smallest that reaches it.

    None where there is no such point.
    """
    usable = [p for p in points if goal.allows(p.bytes) and goal.is_reached(p.accuracy_after)]
    if not usable:
        return None
    if goal.min_accuracy is not None:
        return min(usable, key=lambda p: (p.bytes, -p.accuracy_after))
    return max(usable, key=lambda p: (p.accuracy_after, -p.bytes))


def trial_of(point: Point) -> Trial:
    """What was trained for a point."""
    return Trial(point.method, point.options, point.matrices, point.rate)


def _has_time(goal: Goal, points: Sequence[Point]) -> bool:
    """Whether one more fit leaves time for the trainings to come.

    A fit takes a few looks at the data: little beside a long training, much beside a short one.
    """
    trained = [p.seconds for p in points if not p.fitted]
    fitted = [p.seconds for p in points if p.fitted]
    training = sum(trained) / len(trained)
    next_fit = max(fitted, default=_FIT * training)
    all_trained = goal.trials * training
    return all_trained + sum(fitted) + next_fit <= _MOST * training


def _next_trial(goal: Goal, facts: Facts, points: Sequence[Point]) -> Trial | None:
    if goal.min_accuracy is not None:
        return _towards(goal, facts, points)
    assert goal.max_bytes is not None
    return _fill(goal.max_bytes, facts, points) or _smaller(goal.max_bytes, facts, points)


def _fill(most: int, facts: Facts, points: Sequence[Point]) -> Trial | None:
    """What to train for all of the size: aimed at it, corrected, and in another way."""
    trial = trial_for(most, facts, points)
    tried = [trial_of(p) for p in points if not p.fitted]
    if not tried:
        return trial
    share = _FULL.get(len(tried), 0.0)
    full = any(share * most <= p.bytes <= most and _keeps(p, points) for p in points)
    if not full and trial not in tried:
        return trial
    return _variant(most, facts, points)


def _keeps(point: Point, points: Sequence[Point]) -> bool:
    """Whether a package does what its training had learnt."""
    source = next(p for p in points if p.trial == point.trial and not p.fitted)
    gained = source.accuracy_after - source.accuracy_before
    return point.accuracy_after >= source.accuracy_before + _KEPT * gained


def _variant(most: int, facts: Facts, points: Sequence[Point]) -> Trial | None:
    """Another way to the same size: a dense change where one fits, then a lower rate."""
    tried = [trial_of(p) for p in points]
    dense = dense_within(most, facts, points)
    if dense is not None and all(t.method != "direct" for t in tried):
        return dense
    within = [p for p in points if p.bytes <= most] or points
    best = trial_of(max(within, key=lambda p: p.accuracy_after))
    if best == GAINS or any(t.rate != 1.0 for t in tried):
        return None
    return replace(best, rate=_SLOWER)


def _smaller(most: int, facts: Facts, points: Sequence[Point]) -> Trial | None:
    """A point for those who ask what fewer bytes would bring."""
    if min(p.bytes for p in points) <= 2 * _SMALL * most:
        return None
    return trial_for(_SMALL * most, facts, points)


def _towards(goal: Goal, facts: Facts, points: Sequence[Point]) -> Trial | None:
    """Towards the fewest bytes that reach the accuracy."""
    if not points:
        size = goal.max_bytes or overhead(facts, points) + _FIRST_BITS / 8 * facts.weights
        return trial_for(size, facts, points)
    best = choose(goal, points)
    if best is not None:
        return _down(goal, facts, points, best)
    if goal.max_bytes is not None:
        return _fill(goal.max_bytes, facts, points)
    return _up(goal, facts, points)


def _down(goal: Goal, facts: Facts, points: Sequence[Point], high: Point) -> Trial | None:
    """Between the smallest that reaches it and the largest below, which does not.

    The base itself is such a point: it takes no more than a package that changes nothing.
    """
    if not high.matrices:
        return None
    if goal.is_reached(high.accuracy_before):
        return GAINS
    below = [(float(p.bytes), p.accuracy_after) for p in points if p.bytes < high.bytes]
    low = max([(float(facts.least), high.accuracy_before), *below])
    span = math.log(high.bytes / low[0])
    if span < math.log(_CLOSE):
        return None
    size = bytes_between(low, (high.bytes, high.accuracy_after), _wanted(goal))
    nearest, farthest = low[0] * math.exp(_EDGE * span), high.bytes * math.exp(-_EDGE * span)
    return trial_for(min(max(size, nearest), farthest), facts, points)


def _up(goal: Goal, facts: Facts, points: Sequence[Point]) -> Trial | None:
    """Beyond the largest, as far as the line from the base says; at last a dense change."""
    high = max(points, key=lambda p: p.bytes)
    if high.method == "direct":
        return replace(trial_of(high), rate=_SLOWER)
    size = math.inf
    if high.accuracy_after > high.accuracy_before:
        base = float(facts.least), high.accuracy_before
        size = bytes_between(base, (high.bytes, high.accuracy_after), _wanted(goal))
    least, most = (factor * high.bytes for factor in _UP)
    size = min(max(size, least), most)
    tried = [trial_of(p) for p in points]
    while (trial := trial_for(size, facts, points)) in tried and trial != DIRECT:
        size *= _UP[0]
    return trial


def _wanted(goal: Goal) -> float:
    return (goal.min_accuracy or 0.0) / 100
