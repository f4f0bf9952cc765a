"""Packages that are built because devices need them: once, and not again and again."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator

import pytest

from server.errors import BadVersion
from server.planner.plan import Wanted
from server.rollouts.building import FIRST_PAUSE, LONGEST_PAUSE, Building

XOR, FULL = Wanted(2, 1), Wanted(2)


class Yard:
    """Builds what it is told to, at a time that a test sets."""

    def __init__(self) -> None:
        self.time, self.fails = 0.0, True
        self.tried: queue.Queue[Wanted] = queue.Queue()
        self.building = Building(self._build, lambda: self.time)

    def _build(self, wanted: Wanted) -> None:
        self.tried.put(wanted)
        if self.fails:
            raise BadVersion("removed", "gone")

    def ask(self, wanted: Wanted, tried: bool) -> None:
        """Ask, and see whether that leads to a build."""
        self.building.ask(wanted)
        self.building.ask(wanted)
        if tried:
            assert self.tried.get(timeout=30) == wanted
        until(lambda: (wanted in self.building.unbuildable()) == self.fails)
        assert self.tried.empty()


def until(look: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not look():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def yard() -> Iterator[Yard]:
    made = Yard()
    yield made
    made.building.close()


def test_a_build_that_failed_is_not_tried_at_every_poll(yard: Yard) -> None:
    yard.ask(XOR, tried=True)
    yard.ask(XOR, tried=False)
    assert yard.building.unbuildable() == {XOR}
    yard.time += FIRST_PAUSE
    assert yard.building.unbuildable() == frozenset()
    yard.ask(XOR, tried=True)
    yard.time += FIRST_PAUSE
    yard.ask(XOR, tried=False)  # the pause has doubled
    yard.time += FIRST_PAUSE
    yard.ask(XOR, tried=True)


def test_the_pause_has_an_end(yard: Yard) -> None:
    for _ in range(12):
        yard.ask(XOR, tried=True)
        yard.time += LONGEST_PAUSE
    assert yard.building.unbuildable() == frozenset()


def test_one_failure_says_nothing_of_other_packages(yard: Yard) -> None:
    yard.ask(XOR, tried=True)
    yard.fails = False
    yard.ask(FULL, tried=True)
    assert yard.building.unbuildable() == {XOR}


def test_a_success_ends_the_pauses(yard: Yard) -> None:
    yard.ask(XOR, tried=True)
    yard.time, yard.fails = FIRST_PAUSE, False
    yard.ask(XOR, tried=True)
    yard.fails = True
    until(lambda: XOR not in yard.building._under_way)
    yard.ask(XOR, tried=True)
    yard.time += FIRST_PAUSE
    yard.ask(XOR, tried=True)
