"""The link `current`, which is the agent's: what others do to it is put right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent import files
from shared.errors import NoSpace

MODEL = "digits"


def lose(link: Path) -> None:
    link.unlink()


def turn(link: Path) -> None:
    link.unlink()
    link.symlink_to("slots/a.safetensors")


def lead_elsewhere(link: Path) -> None:
    """To a file of the same name."""
    link.unlink()
    link.symlink_to("/nowhere/slots/b.safetensors")


def copy_over(link: Path) -> None:
    data = link.read_bytes()
    link.unlink()
    link.write_bytes(data)


HARMS = [lose, turn, lead_elsewhere, copy_over]


@pytest.fixture
def device(bench: Any, plane: Any, shelf: Any) -> Any:
    """A device with version 1 in slot a, and version 2 in slot b in use."""
    for version, package in ((1, "full-1"), (2, "xor-12")):
        plane.offer(shelf, shelf.wanted(version, package, version))
        assert bench.round() == []
    plane.offer(shelf, None)
    return bench


def is_right(bench: Any, slot: str = "b") -> bool:
    link = bench.folder / "current"
    return link.is_symlink() and link.readlink() == Path(f"slots/{slot}.safetensors")


@pytest.mark.parametrize("harm", HARMS)
def test_it_is_put_right_at_the_start(
    device: Any, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    harm(device.folder / "current")
    with device.running():
        assert is_right(device)
    assert "current" in caplog.text


@pytest.mark.parametrize("harm", HARMS)
def test_it_is_put_right_at_each_poll(
    device: Any, plane: Any, harm: Callable[[Path], None]
) -> None:
    with device.running() as agent:
        for _ in range(2):
            harm(device.folder / "current")
            plane.faults = [lambda h: (h.problem(503, "x.y"), True)[1]]  # no server is needed
            agent.clock.wait(agent.pause())
            agent.turn()
            assert is_right(device)


def test_an_update_that_waits_is_no_reason_to_leave_it_wrong(
    device: Any, plane: Any, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.offer(shelf, shelf.wanted(3, "xor-23", 3))
    with device.running() as agent, monkeypatch.context() as full_disk:
        full_disk.setattr(files, "free_bytes", lambda _directory: 1000)
        agent.turn()
        lose(device.folder / "current")
        agent.clock.wait(agent.pause())
        agent.turn()
        assert agent.updates[MODEL].journal.state == "deferred"
        assert is_right(device)
        lose(device.folder / "current")
        agent.updates[MODEL].consider(None)
        assert agent.updates[MODEL].journal.state == "idle"
        agent.clock.wait(agent.pause())
        agent.turn()
    assert is_right(device)


def test_what_is_judged_is_what_it_leads_to(
    device: Any, plane: Any, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.offer(shelf, shelf.wanted(3, "xor-23", 3))
    with device.running() as agent:
        swap = agent.updates[MODEL].runtime.swap

        def swap_and_turn(weights: Any) -> None:
            swap(weights)
            lead_elsewhere(device.folder / "current")

        monkeypatch.setattr(agent.updates[MODEL].runtime, "swap", swap_and_turn)
        assert agent.turn() == []
    assert device.in_use() == shelf.digests[3]
    assert (plane.reports[-1].result, plane.reports[-1].weights_digest) == (
        "committed",
        shelf.digests[3],
    )


def test_a_journal_that_does_not_say_what_is_in_use_learns_it(device: Any) -> None:
    journal = device.folder / "journal.json"
    said = json.loads(journal.read_text())
    assert said.pop("in_use") == "b"
    journal.write_text(json.dumps(said))
    with device.running() as agent:
        lose(device.folder / "current")
        agent.turn()
    assert is_right(device)


def test_a_device_with_nothing_in_use_gets_no_link(bench: Any, plane: Any, shelf: Any) -> None:
    bench.settings["models"][MODEL]["health_command"] = ["false"]
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    bench.round()
    assert bench.round() == []
    assert not (bench.folder / "current").is_symlink()


def test_where_it_cannot_be_put_right_the_polls_go_on(
    device: Any, plane: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with device.running() as agent:
        lose(device.folder / "current")

        def fail(path: Path, _: str) -> None:
            raise NoSpace("unusable", f"{path}: Input/output error")

        with monkeypatch.context() as broken_disk:
            broken_disk.setattr(files, "link", fail)
            agent.turn()
            assert len(plane.asked("/device/v1/desired")) == 3
        agent.clock.wait(agent.pause())
        agent.turn()
    assert is_right(device)
