"""When the program that uses the weights is told what; its own side is tested in tests/runtimes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent import model as model_module
from edge_agent.errors import HealthError, RuntimeAway, RuntimeRefused
from edge_agent.journal import load_journal
from edge_agent.runtimes import Verdict, Weights
from edge_agent.runtimes.serving import serve
from server.packaging.encode import build_package
from shared.errors import WeftError
from shared.golden import golden_of

MODEL = "digits"


@dataclass
class Program:
    """A program that notes what it is told, and what it found in use then; it may object."""

    bench: Any
    holds_copy: bool = True
    told: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    ready: list[bool] = field(default_factory=list)
    objections: dict[str, list[WeftError]] = field(default_factory=dict)
    holds: str | None = None
    golden: list[Any] = field(default_factory=list)

    def _note(self, call: str, weights: Weights | None) -> None:
        digest = weights.digest if weights else None
        self.told.append((call, digest, self.bench.in_use()))
        if self.objections.get(call):
            raise self.objections[call].pop(0)

    def prepare(self, new: Weights) -> None:
        self.ready.append(new.ready)
        self._note("prepare", new)

    def swap(self, new: Weights) -> None:
        self._note("swap", new)

    def verify(self, new: Weights, golden: Any) -> Verdict:
        self.golden.append(golden)
        self._note("verify", new)
        return Verdict("passed", self.holds or new.digest)

    def confirm(self, new: Weights) -> None:
        self._note("confirm", new)

    def revert(self, old: Weights | None) -> Verdict:
        self._note("revert", old)
        return Verdict("unverified", old.digest if old else None)

    @property
    def calls(self) -> list[str]:
        return [call for call, _, _ in self.told]


@pytest.fixture
def program(bench: Any, plane: Any, shelf: Any, monkeypatch: pytest.MonkeyPatch) -> Program:
    """A program with version 1, to which version 2 is offered."""
    found = Program(bench)
    monkeypatch.setattr(model_module, "open_runtime", lambda *_: found)
    bench.settings["models"][MODEL]["initial"] = str(shelf.weights[1])
    plane.offer(shelf, shelf.wanted(2, "xor-12"))
    return found


def test_the_program_is_told_in_order(program: Program, bench: Any, plane: Any, shelf: Any) -> None:
    assert bench.round() == []
    old, new = shelf.digests[1], shelf.digests[2]
    assert program.told == [
        ("prepare", new, old),
        ("swap", new, new),
        ("verify", new, new),
        ("confirm", new, new),
    ]
    assert program.ready == [True]
    assert (plane.reports[-1].health, plane.reports[-1].result) == ("passed", "committed")


def test_in_place_the_program_is_asked_before_the_file_changes(
    program: Program, bench: Any, shelf: Any
) -> None:
    bench.settings["models"][MODEL] |= {
        "storage": "inplace",
        "runtime": {"kind": "file", "holds_copy": True},
    }
    assert bench.round() == []
    assert program.ready == [False]
    assert program.told[0] == ("prepare", shelf.digests[2], shelf.digests[1])
    assert program.told[1] == ("swap", shelf.digests[2], shelf.digests[2])


def test_a_program_that_refuses_changes_nothing(
    program: Program, bench: Any, plane: Any, shelf: Any
) -> None:
    program.objections["prepare"] = [RuntimeRefused("refused", "head.weight is fused")]
    assert bench.round() == ["runtime.refused"]
    assert (bench.in_use(), program.calls) == (shelf.digests[1], ["prepare"])
    (report,) = plane.reports
    assert (report.result, report.error.message) == ("failed_no_change", "head.weight is fused")


@pytest.mark.parametrize("call", ["swap", "verify"])
@pytest.mark.parametrize(
    "objection", [HealthError("failed", "3 of 8 labels"), RuntimeRefused("refused", "head.weight")]
)
def test_a_program_that_does_not_accept_goes_back(
    program: Program, bench: Any, plane: Any, shelf: Any, call: str, objection: WeftError
) -> None:
    program.objections[call] = [objection]
    assert bench.round() == [objection.code]
    old = shelf.digests[1]
    assert program.told[-1] == ("revert", old, old)
    assert bench.in_use() == old
    assert plane.reports[-1].result == "failed_rolled_back"


def test_a_program_that_holds_something_else_is_not_believed(
    program: Program, bench: Any, plane: Any, shelf: Any
) -> None:
    program.holds = shelf.digests[1]
    assert bench.round() == ["health.wrong_weights"]
    assert bench.in_use() == shelf.digests[1]
    assert (plane.reports[-1].result, plane.reports[-1].health) == ("failed_rolled_back", "failed")


@pytest.mark.parametrize("call", ["swap", "verify"])
def test_a_program_that_is_away_for_a_moment_is_waited_for(
    program: Program, bench: Any, plane: Any, shelf: Any, call: str
) -> None:
    """After a loss of power the agent may be there before the program."""
    program.objections[call] = [RuntimeAway("away", "nobody listens")] * 2
    with bench.running() as agent:
        assert agent.round()[1] == []
    assert bench.in_use() == shelf.digests[2]
    assert Counter(program.calls)[call] == 3
    assert [report.result for report in plane.reports] == ["committed"]


def test_a_program_that_stays_away_with_the_new_weights_gets_the_old_ones(
    program: Program, bench: Any, plane: Any, shelf: Any
) -> None:
    """They may be what it died of; but it may also take minutes to start."""
    program.objections["verify"] = [RuntimeAway("away", "nobody listens")] * 99
    with bench.running() as agent:
        update, began = agent.updates[MODEL], agent.clock.now()
        while not plane.reports:
            agent.turn()
            assert plane.reports or update.journal.state == "verifying"
            agent.clock.wait(agent.pause())
        assert 300 < agent.clock.now() - began < 1000
    assert bench.in_use() == shelf.digests[1]
    assert program.calls[-1] == "revert"
    (report,) = plane.reports
    assert (report.result, report.error.code) == ("failed_rolled_back", "runtime.away")


def test_weights_that_crash_program_and_device_are_taken_back(
    program: Program, bench: Any, plane: Any, shelf: Any
) -> None:
    """Each start of the agent finds nobody, and is ended by the next crash before it gave up."""
    program.objections["verify"] = [RuntimeAway("away", "nobody listens")] * 99
    bench.settings["max_attempts"] = 3
    for _ in range(3):
        assert set(bench.round()) == {"runtime.away"}
    assert bench.round() == ["agent.too_many_attempts"]
    assert bench.in_use() == shelf.digests[1]
    assert plane.reports[-1].result == "failed_rolled_back"


@pytest.mark.parametrize(("call", "judged"), [("confirm", "passed"), ("revert", "failed")])
def test_a_program_that_is_silent_at_the_end_does_not_hold_up_the_rest(
    program: Program, bench: Any, plane: Any, shelf: Any, call: str, judged: str
) -> None:
    program.objections[call] = [RuntimeAway("away", "it is there, and says nothing")] * 99
    if judged == "failed":
        program.objections["verify"] = [HealthError("failed", "no")]
    with bench.running() as agent:
        for _ in range(20):
            agent.turn()
            agent.clock.wait(agent.pause())
    assert Counter(program.calls)[call] == 5
    journal = load_journal(bench.folder / "journal.json")
    assert journal is not None
    assert journal.state == "idle"
    (report,) = plane.reports
    assert report.health == judged
    assert (report.error is None) == (judged == "passed")
    assert report.error is None or report.error.code == "health.failed"


def test_a_first_installation_that_fails_leaves_the_program_with_nothing(
    program: Program, bench: Any, plane: Any, shelf: Any
) -> None:
    del bench.settings["models"][MODEL]["initial"]
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    program.objections["verify"] = [HealthError("failed", "no")]
    assert bench.round() == ["health.failed"]
    assert program.told[-1] == ("revert", None, None)


def test_weights_in_use_are_judged_again_without_a_swap(
    program: Program, bench: Any, plane: Any, shelf: Any
) -> None:
    plane.offer(shelf, shelf.wanted(1, None, assignment=9))
    program.objections["verify"] = [HealthError("failed", "no")]
    assert bench.round() == ["health.failed"]
    assert program.calls == ["verify"]
    assert (plane.reports[-1].result, bench.in_use()) == ("failed_no_change", shelf.digests[1])


class Died(BaseException):
    """The end of an agent."""


def die_in(state: str, bench: Any) -> None:
    """An agent that dies as soon as it has entered a state."""
    with bench.running() as agent:
        update = agent.updates[MODEL]
        enter = update.enter

        def enter_and_die(entered: str, **changes: Any) -> None:
            enter(entered, **changes)
            if entered == state:
                raise Died

        update.enter = enter_and_die
        with pytest.raises(Died):
            agent.turn()


@pytest.mark.parametrize("state", ["swapping", "verifying", "committed", "rolled_back"])
def test_after_a_crash_the_program_is_told_once_more(
    program: Program, bench: Any, plane: Any, shelf: Any, state: str
) -> None:
    """The agent dies as it has entered a state; the next one does all of that state again."""
    if state == "rolled_back":
        program.objections["verify"] = [HealthError("failed", "no")]

    die_in(state, bench)
    expected = {
        "swapping": ["prepare", "swap", "verify", "confirm"],
        "verifying": ["prepare", "swap", "verify", "confirm"],
        "committed": ["prepare", "swap", "verify", "confirm"],
        "rolled_back": ["prepare", "swap", "verify", "revert"],
    }
    bench.round()
    assert program.calls == expected[state]
    whole = shelf.digests[1 if state == "rolled_back" else 2]
    assert bench.in_use() == whole


class Listener:
    """What serves a program's end of a real socket; it takes whatever it is told to take."""

    def prepare(self, new: Weights) -> None:
        pass

    def swap(self, new: Weights, seconds: float) -> None:
        pass

    def verify(self, new: Weights, golden: Any, seconds: float) -> Verdict:
        return Verdict("passed", new.digest)

    def confirm(self, new: Weights) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize("state", ["swapping", "verifying"])
def test_a_program_may_take_minutes_to_start_after_a_loss_of_power(
    bench: Any, plane: Any, shelf: Any, tmp_path: Path, state: str
) -> None:
    """Longer than its time-outs; polls go on meanwhile."""
    path = tmp_path / "weft.sock"
    bench.settings["models"][MODEL] = {
        "initial": str(shelf.weights[1]),
        "runtime": {"kind": "program", "socket": str(path), "timeout_seconds": 1},
        "health_timeout_seconds": 1,
    }
    plane.offer(shelf, shelf.wanted(2, "xor-12"))
    with serve({MODEL: Listener()}, path):
        die_in(state, bench)
    with bench.running() as agent:
        update, began = agent.updates[MODEL], agent.clock.now()
        agent.recover()
        while agent.clock.now() - began < 240:
            agent.turn()
            assert (update.journal.state, plane.reports) == (state, [])
            agent.clock.wait(agent.pause())
        assert len(plane.asked("/device/v1/desired")) > 6
        with serve({MODEL: Listener()}, path):
            agent.clock.wait(60)
            assert agent.turn() == []
    assert bench.in_use() == shelf.digests[2]
    assert [(r.result, r.health) for r in plane.reports] == [("committed", "passed")]


def test_golden_samples_reach_the_program_and_stay_with_their_weights(
    program: Program, bench: Any, plane: Any, shelf: Any, tmp_path: Path
) -> None:
    golden = golden_of([3, 1, 4, 1], 10, 3, {"seed": 7, "shape": (1, 8, 8)})
    old, new, place = shelf.weights[1], shelf.weights[2], tmp_path / "built"
    built = build_package(old, new, "xor", {}, place, MODEL, golden=lambda _: golden)
    wanted = shelf.wanted(2, "xor-12", 1)
    url = f"/device/v1/packages/{built.sha256}"
    offer = wanted.package.model_copy(
        update={"sha256": built.sha256, "size": built.size, "url": url}
    )
    plane.offer(shelf, wanted.model_copy(update={"package": offer}))
    plane.files[built.sha256] = built.path.read_bytes()
    assert bench.round() == []
    for version, assignment in ((1, 2), (2, 3)):
        plane.offer(shelf, shelf.wanted(version, None, assignment))
        assert bench.round() == []
    assert program.golden == [golden, None, golden]
