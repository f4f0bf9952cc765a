"""The invariants of rollouts against the real code: random fleets, and two evaluators at once."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.db import reading, writing
from server.rollouts import deploy, evaluation, once_more
from server.rollouts.states import UPDATING
from server.rollouts.steps import Outrun, carry_out
from server.rollouts.strategies.base import Admit
from server.rollouts.view import look
from server.tables import Rollout
from shared.errors import WeftError

PHASES = [
    {"percent": 20, "soak_seconds": 30},
    {"percent": 60, "soak_seconds": 0},
    {"percent": 100, "soak_seconds": 0},
]


class Chaos:
    """A fleet in which anything may happen at any time, and what must hold all the same."""

    def __init__(self, yard, seed: int) -> None:
        self.yard, self.draw = yard, random.Random(seed)
        self.cap = self.draw.choice([1, 2, 4])
        self.devices = [yard.enrol() for _ in range(8)]
        self.rollout = yard.roll_out(
            phases=PHASES,
            max_open=self.cap,
            success_percent=70.0,
            deadline_seconds=120,
            abort_rules=[{"kind": "failed", "percent": 60, "min_count": 4}],
        )
        self.phase, self.was_aborted = 0, False

    def act(self) -> None:
        actions = [
            *[self.answer] * 8,
            *[lambda: self.yard.wait(self.draw.choice([1, 31, 121]))] * 2,
            *[lambda: self.order(once_more.retry, None)] * 2,
            lambda: self.devices.append(self.yard.enrol()),
            lambda: self.order(deploy.pause_rollout),
            lambda: self.order(deploy.resume_rollout),
            lambda: self.order(deploy.resume_rollout),
        ]
        self.draw.choice(actions)()
        self.check()

    def answer(self) -> None:
        """One device polls; as often as not it also says how the update ended."""
        device = self.draw.choice(self.devices)
        for offer in self.yard.poll(device).desired.models:
            if offer.held is not None or self.draw.random() < 0.3:
                continue
            if self.draw.random() < 0.75:
                self.yard.report(device, offer.assignment, offer.version)
            else:
                gone = {"result": "failed_rolled_back", "state": "rolled_back"}
                self.yard.report(device, offer.assignment, 1, **gone)

    def order(self, what, *more) -> None:
        try:
            with writing(self.yard.engine) as session:
                what(session, deploy.find_rollout(session, self.rollout), *more)
        except WeftError:
            pass  # not in this state

    def check(self) -> None:
        found = self.yard.rollout(self.rollout)
        states = Counter(self.yard.states(self.rollout).values())
        assert sum(states[s] for s in UPDATING) <= self.cap
        assert not self.was_aborted or found.state == "aborted"
        self.was_aborted = found.state == "aborted"
        if found.state == "aborted":
            assert not states.keys() - {"committed", "failed", "rolled_back", "aborted"}
        if found.phase > self.phase:
            # What was admitted in the step itself has had no time to succeed.
            heard = sum(states.values()) - states["unreached"] - states["idle"]
            assert states["committed"] >= 0.7 * heard - 1e-9
        self.phase = found.phase


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_the_invariants_hold(yard, seed):
    chaos = Chaos(yard, seed)
    for _ in range(60):
        chaos.act()


def test_two_evaluators_never_pass_the_cap(yard, monkeypatch):
    monkeypatch.setattr(evaluation, "SMALL_FLEET", 0)
    for _ in range(24):
        yard.enrol()
    rollout = yard.roll_out(max_open=5)
    start = threading.Barrier(4)

    def evaluate(_: int) -> None:
        start.wait()
        for _ in range(3):
            evaluation.evaluate(yard.engine, rollout)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(evaluate, range(4)))
    assert list(yard.states(rollout).values()) == ["idle"] * 5


def test_of_two_decisions_from_one_snapshot_one_counts(yard, monkeypatch):
    monkeypatch.setattr(evaluation, "SMALL_FLEET", 0)
    devices = [yard.enrol() for _ in range(4)]
    rollout = yard.roll_out(max_open=2)
    with reading(yard.engine) as session:
        views = [look(session, session.get_one(Rollout, rollout), yard.at) for _ in range(2)]
    with writing(yard.engine) as session:
        carry_out(session, views[0], Admit(2), devices[:2], yard.at)
    with pytest.raises(Outrun), writing(yard.engine) as session:
        carry_out(session, views[1], Admit(2), devices[2:], yard.at)
    assert len(yard.states(rollout)) == 2


def test_a_pause_between_two_batches_is_heeded(yard, monkeypatch):
    monkeypatch.setattr(evaluation, "SMALL_FLEET", 0)
    monkeypatch.setattr(evaluation, "BATCH_ROWS", 3)
    for _ in range(9):
        yard.enrol()
    rollout = yard.roll_out()

    def pause(_seconds: float) -> None:  # what an operator does while the evaluator rests
        with writing(yard.engine) as session:
            found = deploy.find_rollout(session, rollout)
            if found.state == "active":
                deploy.pause_rollout(session, found)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation.time, "sleep", pause)
        evaluation.evaluate(yard.engine, rollout)
    assert len(yard.states(rollout)) == 3
    with writing(yard.engine) as session:
        deploy.resume_rollout(session, deploy.find_rollout(session, rollout))
    evaluation.evaluate_due(yard.engine, yard.at)
    assert len(yard.states(rollout)) == 9


def test_an_idle_rollout_is_not_looked_at(yard):
    yard.enrol()
    rollout = yard.roll_out(deadline_seconds=3600)
    due = yard.rollout(rollout).due_at
    assert (due - yard.at).total_seconds() == 3600
    yard.wait(3599)
    assert yard.rollout(rollout).due_at == due


def test_a_filter_that_no_longer_holds_is_told_and_others_go_on(yard):
    from server.tables import Group

    yard.enrol(gpu="orin")
    with writing(yard.engine) as session:
        session.add(Group(name="g", filter="attr.gpu==orin"))
    rollout = yard.roll_out(filter="group==g", max_open=1)
    assert list(yard.states(rollout).values()) == ["idle"]
    with writing(yard.engine) as session:
        session.delete(session.get_one(Group, 1))
    yard.enrol(gpu="orin")
    other = yard.roll_out(version=3)
    assert len(yard.states(other)) == 2
    yard.wait(1)
    assert yard.rollout(rollout).state in ("active", "finished")
