"""A disk that is full, broken or read-only stops an update, and nothing else.

At each operation of a recorded update the disk fails, once or until it is repaired. Meanwhile a
program finds wholly the old or wholly the new weights, and the agent says what is wrong; when the
disk works again, the same agent, or one that is started then, ends where it should.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest

from edge_agent import files
from shared.errors import NoSpace
from tests.edge_agent.plane import MODEL, Bench, Plane, Shelf
from tests.faults.conftest import IS_FULL
from tests.faults.failing import Extent, FailingDisk, Kind
from tests.faults.scenes import FIRST, FULL, HOLDS_COPY, SCENES, offer
from tests.faults.stage import Stage, using
from tests.faults.withstanding import Fault, withstand

NAMES = (
    "update",
    "rolled back",
    "first installation",
    "update in place",
    "rolled back in place",
    "first in place",
)
#: A sample takes each k-th operation, and of those that change a name each one; each in one of the
#: ways to fail, in turns.
STRIDE, TURN = 4, 3
#: Kind, extent, and whether the agent is started again. Nothing goes wrong read-only only once.
WAYS = [
    way
    for way in product(get_args(Kind), get_args(Extent), (False, True))
    if way[:2] not in {("EROFS", "once"), ("EROFS", "there")}
]
CHANGING = {"rename", "symlink", "unlink", "mkdir"}


def faults(operations: list[str]) -> Iterator[Fault]:
    """All, or a sample."""
    taken = 0
    for at, operation in enumerate(operations):
        ways = [way for way in WAYS if operation == "write" or way[0] != "short"]
        if not IS_FULL:
            is_chosen = at % STRIDE == 0 or operation in CHANGING
            ways = [ways[taken * TURN % len(ways)]] if is_chosen else []
            taken += is_chosen
        for kind, extent, restarts in ways:
            yield Fault(kind, at, extent, restarts)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_an_update_withstands_errors_of_the_disk(
    stage: Stage, name: str, note_tried: Callable[..., None]
) -> None:
    played = stage.play(SCENES[name])
    operations = withstand(stage, played, Fault("short", math.inf))
    tried = [withstand(stage, played, fault) for fault in faults(operations)]
    assert len(tried) > 20
    counts: dict[str, Any] = {"operations": len(operations), "faults": len(tried)}
    note_tried("errors of the disk", played.scene.mode, **counts)


@pytest.mark.parametrize(("kind", "code"), [("ENOSPC", "no_space"), ("EROFS", "unusable")])
def test_an_error_of_the_disk_has_a_code(tmp_path: Path, kind: str, code: str) -> None:
    with using(FailingDisk(kind, 0, "everywhere")), pytest.raises(NoSpace) as caught:
        files.write(tmp_path / "x", b"x")
    assert caught.value.code == f"storage.{code}"
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_cannot_note_who_it_is_enrols_only_once(bench: Bench, plane: Plane) -> None:
    with bench.running() as agent:
        for _ in range(3):
            with using(FailingDisk("ENOSPC", 0, "everywhere")):
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
    with bench.running() as agent, using(FailingDisk("ENOSPC", 0, "everywhere")):
        assert [error.code for error in agent.round()[1]] == ["storage.no_space"]
    with bench.running() as agent, using(FailingDisk("ENOSPC", 0, "everywhere")):
        assert [error.code for error in agent.turn()] == ["storage.no_space"]


def test_weights_that_cannot_be_changed_are_given_up_and_are_whole_again_in_the_end(
    bench: Bench, plane: Plane, shelf: Shelf
) -> None:
    bench.settings["models"] = {MODEL: {"storage": "inplace", **HOLDS_COPY}}
    offer(plane, shelf, FULL, 1)
    assert bench.round() == []
    offer(plane, shelf, FIRST, 2)
    disk = BadBlock("EIO", math.inf)
    with bench.running() as agent, using(disk):
        codes: set[str] = set()
        for _ in range(20):
            codes |= {error.code for error in agent.turn()}
            agent.clock.wait(agent.pause())
        assert (codes, bench.in_use()) == ({"storage.unusable"}, None)
        disk.repair()
        agent.clock.wait(600)
        assert agent.turn() == []
    assert (bench.in_use(), bench.leftovers()) == (shelf.digests[1], set())
    error = plane.reports[-1].error
    assert plane.reports[-1].result == "failed_rolled_back"
    assert error is not None
    assert error.code == "agent.too_many_attempts"


class BadBlock(FailingDisk):
    """Nothing can be written in place."""

    def write(self, descriptor: int, data: Any) -> int:
        if not self.is_repaired and self.paths[descriptor].suffix == ".safetensors":
            raise self.error()
        return super().write(descriptor, data)
