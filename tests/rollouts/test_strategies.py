"""What a rollout does next: no sequence of reports breaks what operators rely on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from server.rollouts.strategies import STRATEGIES
from server.rollouts.strategies.base import (
    Abort,
    Admit,
    AdmitAgain,
    Finish,
    NextPhase,
    Outline,
    Phase,
    PhaseDone,
    Plan,
    Rule,
    Snapshot,
    Wait,
)
from server.rollouts.strategies.rules import broken_rule
from server.rollouts.strategies.staged import quota_of

START = datetime(2026, 3, 1, tzinfo=UTC)

RULES = st.builds(
    Rule,
    kind=st.sampled_from(["failed", "timed_out", "unreached"]),
    percent=st.floats(1, 100),
    min_count=st.integers(1, 4),
)
PLANS = st.builds(
    Plan,
    phases=st.lists(st.integers(1, 99), max_size=4, unique=True).map(
        lambda percents: tuple(Phase(p, 60) for p in [*sorted(percents), 100])
    ),
    max_open=st.none() | st.integers(1, 6),
    success_percent=st.floats(0, 100),
    abort_rules=st.lists(RULES, max_size=2).map(tuple),
)


class AnyRollout(RuleBasedStateMachine):
    """Devices do what they like, at any time; whatever is decided is carried out."""

    @initialize(
        plan=PLANS, devices=st.integers(0, 20), strategy=st.sampled_from(sorted(STRATEGIES))
    )
    def begin(self, plan: Plan, devices: int, strategy: str) -> None:
        self.plan, self.strategy = plan, STRATEGIES[strategy]
        self.now, self.at, self.end = Snapshot(waiting=devices), START, None
        self.evaluate()

    def evaluate(self) -> None:
        for _ in range(200):
            if self.end == "aborted":
                return
            step = self.strategy.decide(self.plan, self.now, self.at)
            if isinstance(step, Wait) or self.end == "finished":
                return
            self.take(step)
        raise AssertionError("it never comes to rest")

    def take(self, step: object) -> None:
        now, plan = self.now, self.plan
        if isinstance(step, Admit):
            assert 0 < step.count <= now.waiting
            assert now.admitted + step.count <= self.strategy.outline(plan, now)[now.phase].quota
            self.move(waiting=-step.count, updating=step.count)
        elif isinstance(step, AdmitAgain):
            assert 0 < step.count <= now.again
            self.move(again=-step.count, updating=step.count)
        elif isinstance(step, PhaseDone):
            self.now = replace(now, phase_done_at=self.at)
        elif isinstance(step, NextPhase):
            heard = now.admitted - now.unreached
            assert now.committed * 100 >= plan.success_percent * heard - 1e-9
            assert heard > 0
            assert now.phase_done_at is not None
            assert self.at >= now.phase_done_at + timedelta(seconds=plan.phases[0].soak_seconds)
            self.now = replace(now, phase=now.phase + 1, phase_done_at=None)
        elif isinstance(step, Finish):
            assert now.updating == now.again == now.waiting == 0
            self.end = "finished"
        elif isinstance(step, Abort):
            assert broken_rule(plan, now) == step.reason
            self.end = "aborted"

    def move(self, **changes: int) -> None:
        self.now = replace(self.now, **{n: getattr(self.now, n) + c for n, c in changes.items()})
        cap = self.plan.max_open
        if changes.get("updating", 0) > 0:
            assert cap is None or self.now.updating <= cap

    @precondition(lambda self: self.now.updating)
    @rule(state=st.sampled_from(["committed", "failed", "timed_out", "unreached"]))
    def ends(self, state: str) -> None:
        self.move(updating=-1, **{state: 1})
        self.evaluate()

    @precondition(lambda self: self.now.timed_out + self.now.unreached)
    @rule(state=st.sampled_from(["committed", "failed"]), first=st.booleans())
    def comes_late(self, state: str, first: bool) -> None:
        silent = "timed_out" if self.now.timed_out and (first or not self.now.unreached) else ""
        self.move(**{silent or "unreached": -1, state: 1})
        self.evaluate()

    @precondition(lambda self: self.now.failed and self.end is None)
    @rule()
    def is_retried(self) -> None:
        self.move(failed=-1, again=1)
        self.evaluate()

    @precondition(lambda self: self.end is None)
    @rule(count=st.integers(1, 3))
    def enrol(self, count: int) -> None:
        self.move(waiting=count)
        self.evaluate()

    @rule(seconds=st.sampled_from([1, 59, 61, 3600]))
    def time_passes(self, seconds: int) -> None:
        self.at += timedelta(seconds=seconds)
        self.evaluate()

    @invariant()
    def phases_can_be_shown(self) -> None:
        if not hasattr(self, "plan"):
            return
        quotas = [phase.quota for phase in self.strategy.outline(self.plan, self.now)]
        assert len(quotas) > self.now.phase
        assert quotas == sorted(quotas)
        assert quotas[-1] <= self.now.devices

    @invariant()
    def cap_is_kept(self) -> None:
        cap = self.plan.max_open if hasattr(self, "plan") else None
        assert cap is None or self.now.updating <= cap


AnyRollout.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestAnyRollout = AnyRollout.TestCase


@given(percents=st.lists(st.integers(1, 99), max_size=5, unique=True), devices=st.integers(0, 1000))
def test_each_phase_has_one_more_device_and_the_last_has_all(
    percents: list[int], devices: int
) -> None:
    quotas = [quota_of(p, k, devices) for k, p in enumerate([*sorted(percents), 100])]
    assert quotas[-1] == devices
    assert all(a <= b for a, b in pairwise(quotas))
    assert all(q >= min(k + 1, devices) for k, q in enumerate(quotas))


@pytest.mark.parametrize(
    ("percent", "devices", "quota"), [(7, 100, 7), (10, 42, 5), (0.1, 10, 1), (33.3, 3, 1)]
)
def test_shares_are_rounded_up_exactly(percent: float, devices: int, quota: int) -> None:
    assert quota_of(percent, 0, devices) == quota


def plan(**changes: object) -> Plan:
    phases = (Phase(10, 60), Phase(100))
    return replace(Plan(phases, None, 90, (Rule("failed", 20, 3),)), **changes)  # type: ignore[arg-type]


def test_one_failure_of_one_stops_nothing() -> None:
    now = Snapshot(failed=1, waiting=9)
    assert broken_rule(plan(), now) is None
    assert broken_rule(plan(), replace(now, failed=3)) is not None


@pytest.mark.parametrize(
    ("kind", "now", "is_broken"),
    [
        ("failed", Snapshot(failed=1, timed_out=2, committed=7), True),
        ("failed", Snapshot(failed=3, committed=30), False),
        ("timed_out", Snapshot(failed=9, timed_out=2), False),
        ("timed_out", Snapshot(failed=1, timed_out=3), True),
        ("unreached", Snapshot(unreached=3, committed=7), True),
        ("unreached", Snapshot(unreached=3, updating=30), False),
    ],
)
def test_rules_count_their_own_kind(kind: str, now: Snapshot, is_broken: bool) -> None:
    found = broken_rule(plan(abort_rules=(Rule(kind, 20, 3),)), now)  # type: ignore[arg-type]
    assert (found is not None) == is_broken
    assert found is None or found.code == f"too_many_{kind}"


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (Snapshot(), "no_devices"),
        (Snapshot(committed=1, updating=1, waiting=18), "updating"),
        (Snapshot(held=2, updating=2, waiting=18), "all_held"),
        (Snapshot(committed=1, failed=1, waiting=18), "below_success"),
        (Snapshot(unreached=2, waiting=18), "all_unreached"),
        (Snapshot(committed=2, waiting=18, phase_done_at=START), "soaking"),
        (Snapshot(blocked=20), "blocked"),
    ],
)
def test_it_says_what_it_waits_for(now: Snapshot, code: str) -> None:
    step = STRATEGIES["staged"].decide(plan(), now, START)
    assert isinstance(step, Wait)
    assert step.reason is not None
    assert step.reason.code == code


def test_the_unreached_are_outside_the_success_share() -> None:
    decide = STRATEGIES["staged"].decide
    now = Snapshot(committed=1, unreached=1, waiting=18)
    assert decide(plan(), now, START) == PhaseDone()
    pending = replace(now, unreached=0, updating=1)
    assert isinstance(decide(plan(), pending, START), Wait)


def test_a_finish_below_success_says_so() -> None:
    now = Snapshot(committed=8, failed=2, phase=1, phase_done_at=START)
    step = STRATEGIES["staged"].decide(plan(abort_rules=()), now, START)
    assert isinstance(step, Finish)
    assert step.reason is not None
    assert step.reason.code == "below_success"


def test_phases_are_shown_as_the_strategy_has_them() -> None:
    now = Snapshot(waiting=16, committed=4, phase=1)
    named = STRATEGIES["staged"].outline(plan(), now)
    assert named == [Outline(2, 10, 60), Outline(20, 100, 0)]
    doubled = STRATEGIES["doubling"].outline(plan(), replace(now, phase=2))
    assert doubled == [Outline(1, None, 60), Outline(2, None, 60), Outline(4, None, 60)]


def test_doubling_goes_from_one_to_all() -> None:
    decide, now, sizes = STRATEGIES["doubling"].decide, Snapshot(waiting=11), list[int]()
    for _ in range(100):
        step = decide(plan(phases=(Phase(100),)), now, START)
        if isinstance(step, Admit):
            sizes.append(step.count)
            now = replace(
                now, waiting=now.waiting - step.count, committed=now.admitted + step.count
            )
        elif isinstance(step, PhaseDone):
            now = replace(now, phase_done_at=START)
        elif isinstance(step, NextPhase):
            now = replace(now, phase=now.phase + 1, phase_done_at=None)
        else:
            break
    assert sizes == [1, 1, 2, 4, 3]
    assert isinstance(step, Finish)
