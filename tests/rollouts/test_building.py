"""Packages that are built because devices need them: once, and not again and again."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import update

from server.db import writing
from server.errors import BadVersion
from server.planner.plan import Wanted
from server.publish import automatic
from server.rollouts.building import FIRST_PAUSE, LONGEST_PAUSE, Building, order_missing
from server.tables import Version

XOR, FULL = Wanted(2, 1), Wanted(2)


class Workshop:
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
def workshop() -> Iterator[Workshop]:
    made = Workshop()
    yield made
    made.building.close()


def test_a_build_that_failed_is_not_tried_at_every_poll(workshop: Workshop) -> None:
    workshop.ask(XOR, tried=True)
    workshop.ask(XOR, tried=False)
    assert workshop.building.unbuildable() == {XOR}
    workshop.time += FIRST_PAUSE
    assert workshop.building.unbuildable() == frozenset()
    workshop.ask(XOR, tried=True)
    workshop.time += FIRST_PAUSE
    workshop.ask(XOR, tried=False)  # the pause has doubled
    workshop.time += FIRST_PAUSE
    workshop.ask(XOR, tried=True)


def test_the_pause_has_an_end(workshop: Workshop) -> None:
    for _ in range(12):
        workshop.ask(XOR, tried=True)
        workshop.time += LONGEST_PAUSE
    assert workshop.building.unbuildable() == frozenset()


def test_one_failure_says_nothing_of_other_packages(workshop: Workshop) -> None:
    workshop.ask(XOR, tried=True)
    workshop.fails = False
    workshop.ask(FULL, tried=True)
    assert workshop.building.unbuildable() == {XOR}


def test_a_success_ends_the_pauses(workshop: Workshop) -> None:
    workshop.ask(XOR, tried=True)
    workshop.time, workshop.fails = FIRST_PAUSE, False
    workshop.ask(XOR, tried=True)
    workshop.fails = True
    until(lambda: XOR not in workshop.building._under_way)
    workshop.ask(XOR, tried=True)
    workshop.time += FIRST_PAUSE
    workshop.ask(XOR, tried=True)


def test_what_cannot_be_built_does_not_stand_before_the_rest(
    workshop: Workshop, yard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(yard.engine) as session:
        session.execute(update(Version).values(parent_id=Version.id - 1).where(Version.id > 1))
    monkeypatch.setattr(automatic, "AT_ONCE", 1)
    for wanted in (Wanted(3, 2), Wanted(2, 1)):
        order_missing(yard.engine, workshop.building)
        assert workshop.tried.get(timeout=30) == wanted
        until(lambda wanted=wanted: wanted in workshop.building.unbuildable())
