"""Phase by phase: the phases that the operator named, each a share of all devices.

0. no device, and none can come                  -> Finish
1. a rule that is broken                        -> Abort
2. devices that wait to be admitted once more   -> AdmitAgain, as far as the cap allows
3. the phase's quota is not admitted yet        -> Admit, as far as the cap allows
4. the phase has come to its goal               -> PhaseDone; its soak time begins
5. the soak time is over                        -> NextPhase, or Finish after the last one
6. otherwise                                    -> Wait, with the reason

The goal of a phase: its whole quota is admitted, and of those (but for the unreached) the success
share has committed. The last phase has no share to reach, nobody comes after it: its goal is that
no device is updating any more. Shares are of all devices admitted so far, not of one phase alone.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil

from server.rollouts.strategies.base import (
    Abort,
    Admit,
    AdmitAgain,
    Finish,
    NextPhase,
    Outline,
    PhaseDone,
    Plan,
    Reason,
    Snapshot,
    Step,
    Strategy,
    Wait,
)
from server.rollouts.strategies.rules import broken_rule, share_of


def decide(plan: Plan, now: Snapshot, at: datetime) -> Step:
    """The next step of a rollout in phases."""
    is_last = now.phase == len(plan.phases) - 1
    return step_by(plan, now, at, outline(plan, now)[now.phase], is_last)


def outline(plan: Plan, now: Snapshot) -> list[Outline]:
    """All phases, as the operator named them."""
    return [
        Outline(quota_of(phase.percent, index, now.devices), phase.percent, phase.soak_seconds)
        for index, phase in enumerate(plan.phases)
    ]


def quota_of(percent: float, phase: int, devices: int) -> int:
    """Devices up to the end of a phase: its share of all, rounded up, one more in each phase."""
    # Exactly: 7% of 100 devices are 7, where floats make it 7.000000000000001, rounded up to 8.
    share = ceil(Fraction(str(percent)) * devices / 100)
    return min(max(share, phase + 1), devices)


def step_by(plan: Plan, now: Snapshot, at: datetime, phase: Outline, is_last: bool) -> Step:
    """The next step, for any way to say how large the current phase is."""
    if now.closed and now.devices == 0:  # 0
        return Finish(Reason("no_devices", "no device is left for this rollout"))
    broken = broken_rule(plan, now)
    if broken is not None:  # 1
        return Abort(broken)
    room = now.devices if plan.max_open is None else max(plan.max_open - now.updating, 0)
    if now.again and room:  # 2
        return AdmitAgain(min(now.again, room))
    missing = phase.quota - now.admitted
    if missing > 0 and now.waiting and room:  # 3
        return Admit(min(missing, now.waiting, room))
    goal = missing <= 0 and now.devices > 0 and _is_reached(plan, now, is_last)
    if not goal:
        return Wait(_why(plan, now, missing, is_last))
    if now.phase_done_at is None:  # 4
        return PhaseDone()
    until = now.phase_done_at + timedelta(seconds=phase.soak_seconds)
    if at < until:
        text = f"phase {now.phase + 1} is watched until {until:%Y-%m-%d %H:%M:%S} UTC"
        return Wait(Reason("soaking", text), until)
    return Finish(_shortfall(plan, now) or _left_out(now)) if is_last else NextPhase()  # 5


def _is_reached(plan: Plan, now: Snapshot, is_last: bool) -> bool:
    if is_last:
        return not now.updating and not now.again
    reached = now.admitted - now.unreached
    return reached > 0 and share_of(now.committed, reached) >= plan.success_percent


def _is_out_of_reach(plan: Plan, now: Snapshot) -> bool:
    """Whether the success share is missed even if all goes well from now on."""
    reached = now.admitted - now.unreached
    best = now.committed + now.updating + now.again
    return reached > 0 and share_of(best, reached) < plan.success_percent


def _shortfall(plan: Plan, now: Snapshot) -> Reason | None:
    reached = now.admitted - now.unreached
    if not _is_out_of_reach(plan, now):
        return None
    text = f"{now.committed} of {reached} devices have committed"
    return Reason("below_success", f"{text}; {plan.success_percent:g}% were wanted")


def _left_out(now: Snapshot) -> Reason | None:
    if not now.boxed:
        return None
    text = "left out, as their updates failed too often in a row"
    return Reason("boxed", f"devices: {now.boxed} {text}")


def _why(plan: Plan, now: Snapshot, missing: int, is_last: bool) -> Reason | None:
    """What a phase waits for. Counts are left out where they change with every report."""
    if now.devices == 0:
        return _left_out(now) or Reason("no_devices", "no device matches yet")
    if missing <= 0 and not is_last and (short := _shortfall(plan, now)) is not None:
        return short
    if now.updating and now.held == now.updating:
        return Reason("all_held", "nothing can be offered to the devices that are admitted")
    if now.updating or now.again:
        return Reason("updating", "devices are updating")
    if now.blocked and missing > 0:
        return Reason("blocked", "devices are in the middle of a swap for another rollout")
    return Reason("all_unreached", "none of the devices admitted has been heard of")


STAGED = Strategy("by `phases`", decide, outline)
