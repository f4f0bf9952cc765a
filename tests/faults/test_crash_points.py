"""Wherever an agent is killed or the power fails, it goes on by itself to where it should be.

A scene is recorded once as its sequence of operations on the disk. For each point of it, agents are
started on what a process death, and each of several power losses, would have left there, until all
is at rest. At once after the crash a program finds wholly the old or wholly the new weights (with
storage mode `inplace`, or none); at the end the right ones are in use, the server knows, and the
disk holds the same as if nothing had happened. See `stage.py` for what is checked.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.conftest import IS_FULL
from tests.faults.crashes import Point, crash, points
from tests.faults.recording import Noted, Rename, Symlink, Unlink
from tests.faults.scenes import SCENES
from tests.faults.stage import Stage

#: Of the points that are not chosen for a reason, a sample takes each of so many.
STRIDE = 13


def chosen(noted: list[Noted]) -> list[Point]:
    """All points, or each k-th and those at which a name has just been changed."""
    every = list(points(noted))
    if IS_FULL:
        return every
    changing = (Rename, Symlink, Unlink)
    return [
        point
        for number, point in enumerate(every)
        if number % STRIDE == 0
        or (point.done and isinstance(noted[point.done - 1].operation, changing))
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SCENES)
def test_after_any_crash_it_goes_on_and_ends_as_if_nothing_had_been(
    stage: Stage, name: str, note_tried: Callable[..., None]
) -> None:
    scene = SCENES[name]
    played = stage.play(scene)
    tried = crash(stage, played, chosen(played.noted), twice=IS_FULL and scene.news is None)
    assert tried.losses > tried.points > 10
    note_tried("crash points", scene.mode, **tried.counts())
