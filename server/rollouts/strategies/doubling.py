"""One device, then two, four, eight: for an operator who does not want to name phases.

Each phase is twice as large as the one before; all else is as in `staged`. The soak time is that
of the first phase of the plan, the percentages there are not looked at.
"""

from __future__ import annotations

from datetime import datetime

from server.rollouts.strategies.base import Plan, Snapshot, Step
from server.rollouts.strategies.staged import step_by

#: 2^40 devices are more than any database holds, and a phase's index is not.
MOST_DOUBLINGS = 40


def decide(plan: Plan, now: Snapshot, at: datetime) -> Step:
    """The next step of a rollout that doubles."""

    def quota(phase: int, devices: int) -> int:
        return min(1 << min(phase, MOST_DOUBLINGS), devices)

    is_last = quota(now.phase, now.devices) == now.devices and now.devices > 0
    return step_by(plan, now, at, quota, plan.phases[0].soak_seconds, is_last)
