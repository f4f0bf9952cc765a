"""A disk that is full, broken or read-only stops an update, and nothing else.

At each operation of a recorded update the disk fails, once or until it is repaired. Meanwhile a
program finds wholly the old or wholly the new weights, and the agent says what is wrong; when the
disk works again, the same agent, or one that is started then, ends where it should.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent import files
from shared.errors import NoSpace
from tests.edge_agent.plane import Bench, Plane, Shelf
from tests.faults.failing import FailingDisk
from tests.faults.stage import using


@pytest.mark.parametrize(("kind", "code"), [("ENOSPC", "no_space"), ("EROFS", "unusable")])
def test_an_error_of_the_disk_has_a_code(tmp_path: Path, kind: str, code: str) -> None:
    with using(FailingDisk(kind, 0, lasts=True)), pytest.raises(NoSpace) as caught:
        files.write(tmp_path / "x", b"x")
    assert caught.value.code == f"storage.{code}"
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_cannot_note_who_it_is_enrols_only_once(bench: Bench, plane: Plane) -> None:
    with bench.running() as agent:
        for _ in range(3):
            with using(FailingDisk("ENOSPC", 0, lasts=True)):
                assert {error.code for error in agent.turn()} == {"storage.no_space"}
            agent.clock.wait(agent.pause())
        assert agent.turn() == []
    assert bench.round() == []
    assert len(plane.enrolments) == 1


def test_an_update_that_cannot_be_noted_is_an_error_of_the_round(
    bench: Bench, plane: Plane, shelf: Shelf
) -> None:
    assert bench.round() == []
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    with bench.running() as agent, using(FailingDisk("ENOSPC", 0, lasts=True)):
        assert [error.code for error in agent.round()[1]] == ["storage.no_space"]
    with bench.running() as agent, using(FailingDisk("ENOSPC", 0, lasts=True)):
        assert [error.code for error in agent.turn()] == ["storage.no_space"]
