"""A disk of which a part cannot be read stops the one model that lies there, and nothing else."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent.showing import Showing

MODEL = "digits"


class Disk:
    """While `is_broken`, nobody learns anything of the files below the first model's directory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_broken = False
        stat = Path.stat

        def fail(path: Path, **options: Any) -> Any:
            if self.is_broken and "unlucky" in path.parts[:-1]:
                raise OSError(errno.EIO, "Input/output error", str(path))
            return stat(path, **options)

        monkeypatch.setattr(Path, "stat", fail)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk(monkeypatch)
    yield made
    made.is_broken = False


@pytest.fixture
def offered(bench: Any, plane: Any, shelf: Any) -> Any:
    """Version 2 is offered to two models that hold version 1."""
    held = {"initial": str(shelf.weights[1])}
    bench.settings["models"] = {"unlucky": held, MODEL: held}
    plane.offer(shelf, shelf.wanted(2, "full-2"))
    plane.models["unlucky"] = shelf.wanted(2, "full-2").model_copy(update={"model": "unlucky"})
    return bench


def run(agent: Any, turns: int) -> set[str]:
    codes = set()
    for _ in range(turns):
        codes |= {error.code for error in agent.turn()}
        agent.clock.wait(agent.pause())
    return codes


@pytest.mark.parametrize("state", ["idle", "downloading"])
def test_the_others_go_on_and_it_does_later(
    state: str, offered: Any, plane: Any, shelf: Any, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    if state == "downloading":
        plane.faults = [lambda h: "/packages/" in h.path and (h.problem(503, "x.y"), True)[1]] * 2
    with offered.running() as agent:
        if state != "idle":
            agent.turn()
            assert agent.updates["unlucky"].journal.state == state
        disk.is_broken = True
        assert run(agent, 12) <= {"storage.unusable"}
        assert "storage.unusable" in caplog.text
        assert offered.in_use() == shelf.digests[2]
        assert len(plane.asked("/device/v1/desired")) > 3
        assert agent.updates[MODEL].journal.state == "idle"
        disk.is_broken = False
        agent.clock.wait(3600)
        run(agent, 12)
    # It went on, and found that the package is another model's.
    last = {report.model: report.error for report in plane.reports}
    assert (last["unlucky"].code, last[MODEL]) == ("trust.wrong_model", None)


def test_it_is_shown_as_far_as_it_can_be(offered: Any, disk: Disk) -> None:
    lines: list[str] = []
    with offered.running() as agent:
        show = Showing(offered.config, lines.append)
        disk.is_broken = True
        show(agent)
        disk.is_broken = False
        show(agent)
    assert any("its first weights" in line for line in lines)


def test_a_device_enrols_with_what_it_can_read(
    offered: Any, plane: Any, shelf: Any, disk: Disk
) -> None:
    with offered.running() as agent:
        disk.is_broken = True
        agent.turn()
    (enrolment,) = plane.enrolments
    assert {name: held.current for name, held in enrolment.models.items()} == {
        MODEL: shelf.digests[1]
    }
