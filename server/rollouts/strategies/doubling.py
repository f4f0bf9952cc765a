"""One device, then two, four, eight: for an operator who does not want to name phases.

Each phase is twice as large as the one before; all else is as in `staged`. The soak time is that
of the first phase of the plan, the percentages there are not looked at.
"""

from __future__ import annotations

from datetime import datetime

from server.rollouts.strategies.base import Outline, Plan, Snapshot, Step, Strategy
from server.rollouts.strategies.staged import step_by

#: 2^40 devices are more than any database holds, and a phase's index is not.
MOST_DOUBLINGS = 40


def decide(plan: Plan, now: Snapshot, at: datetime) -> Step:
    """The next step of a rollout that doubles."""
    phase = outline(plan, now)[now.phase]
    return step_by(plan, now, at, phase, is_last=phase.quota == now.devices > 0)


def outline(plan: Plan, now: Snapshot) -> list[Outline]:
    """The phases until now: how many more there will be changes with the devices."""
    soak = plan.phases[0].soak_seconds
    sizes = (1 << min(index, MOST_DOUBLINGS) for index in range(now.phase + 1))
    return [Outline(min(size, now.devices), None, soak) for size in sizes]


DOUBLING = Strategy(
    "1, 2, 4, 8... devices, each time watched for the soak time of the first phase",
    decide,
    outline,
)
