"""The loop: polls, pauses of each model, slices, deferrals and hours; time is played."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from edge_agent import files
from edge_agent.agent import model as model_module
from edge_agent.agent.clock import Clock
from edge_agent.agent.loop import Agent, Stopped, run_for_ever
from edge_agent.agent.outcomes import outcome_of
from edge_agent.agent.window import seconds_until
from edge_agent.config import load_config
from edge_agent.errors import AgentError, RuntimeAway
from edge_agent.heavy.inline import Inline
from edge_agent.journal import load_journal
from shared.errors import BadConfig, NoSpace

MODEL = "digits"
PACKAGES = "/device/v1/packages"


def refuse(path: str, times: int, **headers: str) -> list[Callable[[Any], bool]]:
    """Faults: so many requests whose path contains `path` are put off."""

    def fault(handler: Any) -> bool:
        if path not in handler.path:
            return False
        handler.problem(503, "x.y", **headers)
        return True

    return [lambda handler: fault(handler) for _ in range(times)]


def state_of(bench: Any) -> str:
    journal = load_journal(bench.folder / "journal.json")
    assert journal is not None
    return journal.state


def codes(agent: Agent) -> list[str]:
    return [error.code for error in agent.turn()]


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The states that are written to journals."""
    found: list[str] = []
    persist = model_module.persist_journal

    def note(path: Path, journal: Any) -> None:
        found.append(journal.state)
        persist(path, journal)

    monkeypatch.setattr(model_module, "persist_journal", note)
    return found


def test_what_was_waited_for_has_passed() -> None:
    waited: list[float] = []
    clock = Clock(waited.append)
    before, day = clock.now(), clock.local()
    clock.wait(3600)
    assert waited == [3600]
    assert 3600 <= clock.now() - before < 3700
    assert 3600 <= (clock.local() - day).total_seconds() < 3700


def test_a_failing_download_pauses_for_itself_and_polls_go_on(
    bench: Any, plane: Any, shelf: Any
) -> None:
    bench.settings["models"] = {"slow": {}, MODEL: {}}
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    plane.models["slow"] = shelf.wanted(2, "full-2").model_copy(update={"model": "slow"})
    slow = f"{PACKAGES}/{shelf.packages['full-2'].sha256}"
    plane.faults = refuse(slow, 99, Retry_After="500")
    with bench.running() as agent:
        assert codes(agent) == ["server.unreachable"]
        assert bench.in_use() == shelf.digests[1]
        assert agent.updates["slow"].not_before - agent.clock.now() > 490
        for _ in range(3):
            agent.clock.wait(agent.pause())
            assert codes(agent) == []
        assert len(plane.asked("/device/v1/desired")) == 4
        assert len(plane.asked(slow)) == 1
        agent.clock.wait(500)
        assert codes(agent) == ["server.unreachable"]
        assert len(plane.asked(slow)) == 2


def test_pauses_grow_while_nothing_comes_and_shrink_when_something_does(
    bench: Any, plane: Any, shelf: Any
) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    plane.interval = "80000"
    plane.faults = refuse(PACKAGES, 8)
    data = shelf.packages["full-1"].path.read_bytes()
    pauses = []
    with bench.running() as agent:
        for _ in range(8):
            assert codes(agent) == ["server.unreachable"]
            pauses.append(agent.pause())
            agent.clock.wait(pauses[-1])
        plane.faults = [lambda h: PACKAGES in h.path and (h.package(data, 50), True)[1]]
        assert codes(agent) == ["server.unreachable"]
        assert agent.pause() < 1.01
    assert 0.4 < pauses[0] < 1.01
    assert 60 < pauses[7] < 129


def test_a_server_that_is_away_is_asked_less_and_less(bench: Any, plane: Any) -> None:
    plane.faults = refuse("/device", 5)
    with bench.running() as agent:
        pauses = []
        for _ in range(5):
            assert codes(agent) == ["server.unreachable"]
            pauses.append(agent.pause())
            agent.clock.wait(pauses[-1])
        assert codes(agent) == []
        assert agent.pause() == pytest.approx(30, abs=1)
    assert pauses[0] < 1.01
    assert pauses[4] > 7.9


def test_between_slices_the_server_can_take_it_back(
    bench: Any, plane: Any, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 64 bytes a second, a slice of 20 s brings a part of the package."""
    bench.settings["max_bytes_per_second"] = 64
    plane.interval = "20"
    plane.offer(shelf, shelf.wanted(1, "full-1", 1))
    with bench.running() as agent:
        assert codes(agent) == []
        part = agent.updates[MODEL].chain.received
        assert 0 < part < shelf.packages["full-1"].size
        assert (state_of(bench), agent.pause()) == ("downloading", 0.0)
        plane.offer(shelf, shelf.wanted(2, "full-2", 2))
        assert codes(agent) == []
        assert agent.updates[MODEL].target.version == 2
        assert bench.leftovers() == {f"package-{shelf.packages['full-2'].sha256}.weft"}
        plane.offer(shelf, None)
        agent.clock.wait(20)
        assert codes(agent) == []
    assert (state_of(bench), bench.leftovers()) == ("idle", set())


def test_a_slice_writes_no_journal(bench: Any, plane: Any, shelf: Any, writes: list[str]) -> None:
    bench.settings["max_bytes_per_second"] = 64
    plane.offer(shelf, shelf.wanted(1, "full-1", 1))
    with bench.running() as agent:
        agent.turn()
        writes.clear()
        while state_of(bench) == "downloading":
            assert codes(agent) == []
            assert writes in ([], ["downloaded", "reconstituting", *writes[2:]])
    assert bench.in_use() == shelf.digests[1]


def test_a_round_goes_on_until_all_is_settled(bench: Any, plane: Any, shelf: Any) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    plane.faults = refuse(PACKAGES, 2)
    with bench.running() as agent:
        assert agent.round() == (30.0, [])
    assert bench.in_use() == shelf.digests[1]


def test_a_round_gives_up_after_three_fruitless_tries(bench: Any, plane: Any, shelf: Any) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    plane.faults = refuse(PACKAGES, 99)
    with bench.running() as agent:
        assert [error.code for error in agent.round()[1]] == ["server.unreachable"]
    assert len(plane.asked(PACKAGES)) == 3


def test_a_deferred_update_looks_at_each_poll_and_writes_nothing(
    bench: Any, plane: Any, shelf: Any, writes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    with bench.running() as agent, monkeypatch.context() as full_disk:
        full_disk.setattr(files, "free_bytes", lambda _directory: 1000)
        assert codes(agent) == ["storage.no_space"]
        writes.clear()
        for _ in range(4):
            agent.clock.wait(agent.pause())
            assert codes(agent) == ["storage.no_space"]
        assert writes == []
        full_disk.undo()
        agent.clock.wait(agent.pause())
        assert codes(agent) == []
    assert bench.in_use() == shelf.digests[1]
    assert [report.state for report in plane.reports] == ["deferred", "committed"]


def test_a_full_disk_of_which_nothing_is_known_is_tried_again_seldom(
    bench: Any, plane: Any, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    with bench.running() as agent, monkeypatch.context() as full_disk:
        tries = []

        def fail(*_: Any) -> None:
            tries.append(agent.clock.now())
            raise NoSpace("no_space", "the quota is used up")

        full_disk.setattr(agent.updates[MODEL].device.heavy, "apply", fail)
        for _ in range(400):
            agent.turn()
            agent.clock.wait(agent.pause())
        assert len(tries) < 15
        assert tries[-1] - tries[-2] > 1700
        full_disk.undo()
        agent.clock.wait(3600)
        assert codes(agent) == []
    assert bench.in_use() == shelf.digests[1]
    assert [report.state for report in plane.reports] == ["deferred", "committed"]


def test_weights_wait_for_their_hours(bench: Any, plane: Any, shelf: Any) -> None:
    with bench.running() as agent:
        hour = agent.clock.local().hour
    opens, closes = f"{(hour + 3) % 24:02}:00", f"{(hour + 5) % 24:02}:00"
    bench.settings["models"][MODEL]["install_window"] = f"{opens}-{closes}"
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    plane.interval = "80000"
    with bench.running() as agent:
        assert codes(agent) == ["agent.outside_window"]
        assert bench.in_use() is None
        assert len(plane.asked(PACKAGES)) == 1
        assert 2 * 3600 - 60 < agent.pause() < 3 * 3600 + 60
        agent.clock.wait(agent.pause())
        assert codes(agent) == []
    assert bench.in_use() == shelf.digests[1]
    assert [report.state for report in plane.reports] == ["deferred", "committed"]
    assert plane.reports[0].error.code == "agent.outside_window"


@pytest.mark.parametrize(
    ("window", "now", "seconds"),
    [
        ("22:00-05:30", "21:59:30", 30),
        ("22:00-05:30", "22:00:00", 0),
        ("22:00-05:30", "23:59:59", 0),
        ("22:00-05:30", "00:00:00", 0),
        ("22:00-05:30", "05:29:59", 0),
        ("22:00-05:30", "05:30:00", 16.5 * 3600),
        ("01:00-02:00", "00:59:59", 1),
        ("01:00-02:00", "01:30:00", 0),
        ("01:00-02:00", "02:00:00", 23 * 3600),
    ],
)
def test_hours_may_pass_midnight(window: str, now: str, seconds: float) -> None:
    local = datetime.fromisoformat(f"2026-03-01T{now}").astimezone()
    assert seconds_until(window, local) == seconds


@pytest.mark.parametrize("window", ["22:00", "24:00-01:00", "22:60-23:00", "5:00-6:00", "a-b"])
def test_hours_that_are_none_are_refused(tmp_path: Path, window: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(f'server = "https://x"\n[models.digits]\ninstall_window = "{window}"\n')
    with pytest.raises(BadConfig, match="install_window"):
        load_config(path, {})
    path.write_text(path.read_text().replace(window, "05:00-05:00"))
    with pytest.raises(BadConfig, match="begins when it ends"):
        load_config(path, {})


def test_a_program_that_is_not_there_is_told_of_once_and_waited_for(
    bench: Any, plane: Any, shelf: Any, writes: list[str], tmp_path: Path
) -> None:
    runtime = {"kind": "program", "socket": str(tmp_path / "nobody")}
    bench.settings["models"][MODEL]["runtime"] = runtime
    bench.settings["max_attempts"] = 1
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    with bench.running() as agent:
        assert codes(agent) == ["runtime.away"]
        writes.clear()
        for _ in range(3):
            agent.clock.wait(agent.pause())
            assert codes(agent) == ["runtime.away"]
        assert writes == []
    assert [report.state for report in plane.reports] == ["deferred"]
    assert bench.in_use() is None
    del bench.settings["models"][MODEL]["runtime"]
    assert bench.round() == []
    assert bench.in_use() == shelf.digests[1]
    assert len(plane.asked(PACKAGES)) == 1


def test_a_mistake_of_ours_is_reported_in_the_end_and_never_spins(
    bench: Any, plane: Any, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    with bench.running() as agent:

        def broken(*_: Any) -> None:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(agent.updates[MODEL].device.heavy, "inspect", broken)
        for _ in range(5):
            assert codes(agent) == ["agent.unexpected"]
            assert agent.pause() > 0
            agent.clock.wait(agent.updates[MODEL].not_before - agent.clock.now())
        assert "agent.too_many_attempts" in codes(agent)
        assert plane.reports[-1].error.message.endswith("ZeroDivisionError: a bug")
    assert plane.reports[-1].result == "failed_no_change"


def test_a_journal_that_cannot_be_written_stops_no_other_model(
    bench: Any, plane: Any, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.settings["models"] = {"unlucky": {}, MODEL: {}}
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    plane.models["unlucky"] = shelf.wanted(2, "full-2").model_copy(update={"model": "unlucky"})
    persist = model_module.persist_journal

    def fail(path: Path, journal: Any) -> None:
        if "unlucky" in str(path) and journal.state == "downloading":
            raise NoSpace("unusable", f"{path}: Input/output error")
        persist(path, journal)

    with bench.running() as agent, monkeypatch.context() as broken_disk:
        broken_disk.setattr(model_module, "persist_journal", fail)
        assert codes(agent) == ["storage.unusable"]
        assert bench.in_use() == shelf.digests[1]
        broken_disk.undo()
        agent.clock.wait(3600)
        agent.turn()
    # It went on, and found that the package is another model's.
    assert {report.model: report.state for report in plane.reports} == {
        "unlucky": "failed",
        MODEL: "committed",
    }


def test_it_runs_until_it_is_stopped(bench: Any, plane: Any, shelf: Any) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    with bench.running() as agent:
        pauses = []

        def wait(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                raise Stopped

        agent.clock._wait = wait
        with pytest.raises(Stopped):
            run_for_ever(agent)
    assert bench.in_use() == shelf.digests[1]
    assert pauses == pytest.approx([30, 30, 30], abs=1)


def test_what_errors_mean() -> None:
    away = RuntimeAway("away", "nobody listens")
    assert outcome_of(away, "staged") == "deferred"
    assert outcome_of(away, "verifying") == "absent"
    assert outcome_of(away, "committed") == "again"
    stuck = AgentError("too_many_attempts", "5 attempts")
    assert outcome_of(stuck, "verifying") == "rolled_back"
    assert outcome_of(stuck, "staged") == "failed"
    died = AgentError("worker_died", "killed by SIGKILL")
    assert outcome_of(died, "reconstituting") == "again"
    assert outcome_of(NoSpace("no_space", ""), "swapping") == "again"


def test_a_model_that_cannot_be_opened_stops_no_other_and_comes_later(
    bench: Any, plane: Any, shelf: Any, tmp_path: Path
) -> None:
    initial = tmp_path / "not-yet.safetensors"
    bench.settings["models"] = {"early": {"initial": str(initial)}, MODEL: {}}
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    with bench.running() as agent:
        assert [error.code for error in agent.recover()] == ["weights.not_found"]
        assert codes(agent) == []
        assert bench.in_use() == shelf.digests[1]
        assert list(agent.updates) == [MODEL]
        initial.write_bytes(shelf.weights[2].read_bytes())
        agent.clock.wait(agent.pause())
        assert codes(agent) == []
        assert agent.updates["early"].digest == shelf.digests[2]


def test_a_child_that_dies_while_a_model_is_opened_stops_no_other(
    bench: Any, plane: Any, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.settings["models"] = {"large": {"initial": str(shelf.weights[2])}, MODEL: {}}
    plane.offer(shelf, shelf.wanted(1, "full-1"))

    def die(_: Inline, path: Path) -> None:
        raise AgentError("worker_died", f"{path}: killed by SIGKILL")

    with monkeypatch.context() as little_memory:
        little_memory.setattr(Inline, "digest", die)
        opened = bench.running()
        agent = opened.__enter__()
    with contextlib.ExitStack() as stack:
        stack.push(opened)
        assert [error.code for error in agent.recover()] == ["agent.worker_died"]
        assert codes(agent) == []
        assert bench.in_use() == shelf.digests[1]
        assert agent.updates["large"].digest == shelf.digests[2]


def test_the_log_says_that_the_server_answers_at_first_and_again(
    bench: Any, plane: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """And not at each poll."""
    caplog.set_level("INFO")
    expected = f"{bench.config.server} answers"
    with bench.running() as agent:
        agent.round()
        agent.round()
        assert caplog.messages.count(expected) == 1
        agent.is_away = True
        agent.round()
    assert caplog.messages.count(expected) == 2


# How long an update took, by clocks that may be wrong until the network is there.


@pytest.mark.parametrize("jump", [56 * 365 * 86400, -86400, 3600])
def test_an_update_took_as_long_as_it_did_whatever_the_clock_on_the_wall_says(
    bench: Any, plane: Any, shelf: Any, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    plane.faults = refuse(PACKAGES, 1, Retry_After="100")
    with bench.running() as agent:
        agent.turn()
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + jump)
        agent.clock.wait(120)
        assert codes(agent) == []
    assert 120 <= plane.reports[-1].seconds < 180


@pytest.mark.parametrize(
    ("jump", "least", "most"), [(3600, 3600, 3700), (56 * 365 * 86400, 40, 100), (-9e4, 40, 100)]
)
def test_across_a_restart_the_clock_on_the_wall_is_believed_within_reason(
    bench: Any,
    plane: Any,
    shelf: Any,
    monkeypatch: pytest.MonkeyPatch,
    jump: float,
    least: float,
    most: float,
) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    plane.faults = refuse(PACKAGES, 1)
    with bench.running() as agent:
        assert codes(agent) == ["server.unreachable"]
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    with bench.running() as agent:
        agent.clock.wait(40)
        assert codes(agent) == []
    assert least <= plane.reports[-1].seconds < most
