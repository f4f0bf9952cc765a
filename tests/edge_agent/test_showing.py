"""What an agent shows of itself: the status, figures, and a line for the service manager."""

from __future__ import annotations

import json
import logging
import math
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_agent import cli, files
from edge_agent.agent.live import Live
from edge_agent.agent.loop import run_for_ever
from edge_agent.agent.metrics import rendered
from edge_agent.agent.showing import LIVE_SECONDS, METRICS_SECONDS, Showing, in_a_line
from edge_agent.agent.status import status
from edge_agent.errors import AgentError
from tests.edge_agent.test_agent_commands import documented

MODEL = "digits"


@pytest.fixture
def shown(bench: Any, tmp_path: Path) -> Any:
    """A device with a directory in memory and a file of figures."""
    (tmp_path / "run").mkdir()
    bench.settings["run_dir"] = str(tmp_path / "run")
    bench.settings["metrics_file"] = str(tmp_path / "weft.prom")
    return bench


def figures(path: Path) -> dict[tuple[str, tuple[str, ...]], float]:
    """Each sample by its name and the values of its labels."""
    families = list(text_string_to_metric_families(path.read_text()))
    assert all(family.documentation and family.type != "unknown" for family in families)
    return {
        (sample.name.removeprefix("weft_agent_"), tuple(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def after_a_round(shown: Any) -> Any:
    """Run an agent for a round, let it show itself, and give what it says."""
    with shown.running() as agent:
        shown.go_on(agent)
        Showing(shown.config, lambda _: None)(agent)
    return figures(shown.config.metrics_file)


def test_figures_of_an_update(shown: Any, plane: Any, shelf: Any) -> None:
    shown.settings["models"][MODEL]["initial"] = str(shelf.weights[1])
    plane.offer(shelf, shelf.wanted(2, "xor-12"))
    said = after_a_round(shown)
    assert said["info", ("0.1.0", "device-1", "")] == 1
    assert said["model_version", (MODEL,)] == 2
    assert said["model_state", (MODEL, "idle")] == 1
    assert said["updates_total", (MODEL, "committed")] == 1
    assert said["polls_total", ()] == said["answers_total", ()] == 1
    assert said["last_answer_time_seconds", ()] >= said["start_time_seconds", ()]
    assert said["traffic_bytes_total", ()] > shelf.packages["xor-12"].path.stat().st_size
    assert said["pending_reports", ()] == 0
    assert ("model_target_version", (MODEL,)) not in said


def test_figures_of_an_update_under_way(shown: Any, plane: Any, shelf: Any) -> None:
    def cut(handler: Any) -> bool:
        if "/packages/" not in handler.path:
            return False
        data = handler.plane.files[handler.path.rpartition("/")[2]]
        handler.package(data, cut=500)
        return True

    plane.faults = [cut]
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    said = after_a_round(shown)
    assert said["model_target_version", (MODEL,)] == 1
    assert said["model_state", (MODEL, "downloading")] == 1
    assert said["model_received_bytes", (MODEL,)] == 500
    assert said["model_package_bytes", (MODEL,)] == shelf.packages["full-1"].path.stat().st_size


def test_odd_names_do_not_break_the_format(shown: Any) -> None:
    with shown.running() as agent:
        live = Live.of(agent, shown.config)
    told = status(shown.config)
    told["device_id"] = 'a"b\\c\nd'
    path = shown.config.metrics_file
    path.write_text(rendered(told, live))
    assert figures(path)["info", ("0.1.0", 'a"b\\c\nd', "")] == 1


def writes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    written: list[Path] = []
    real = files.write
    monkeypatch.setattr(files, "write", lambda path, *a: (written.append(path), real(path, *a))[1])
    return written


def test_files_are_written_where_something_changed_and_not_too_often(
    shown: Any, plane: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shown.running() as agent:
        show = Showing(shown.config, lambda _: None)
        written = writes(monkeypatch)
        assert show(agent) == math.inf
        assert len(written) == 2
        assert show(agent) == math.inf  # nothing has changed
        assert len(written) == 2
        agent.polls.asked += 1
        assert 0 < show(agent) <= LIVE_SECONDS
        agent.clock.wait(LIVE_SECONDS)
        assert 0 < show(agent) <= METRICS_SECONDS - LIVE_SECONDS
        assert [path.name for path in written] == ["live.json", "weft.prom", "live.json"]
        agent.clock.wait(METRICS_SECONDS)
        assert show(agent) == math.inf
        assert figures(shown.config.metrics_file)["polls_total", ()] == 1


class Enough(Exception):
    """Ends a loop."""


def test_the_loop_comes_back_for_what_is_left_to_show(bench: Any, plane: Any) -> None:
    plane.interval = "3000"
    later = iter([7.0, math.inf])

    def show(_: Any) -> float:
        if (seconds := next(later, None)) is None:
            raise Enough
        return seconds

    with bench.running() as agent, pytest.raises(Enough):
        run_for_ever(agent, show)
    assert bench.pauses[0] == 7.0
    assert bench.pauses[1] > 2000


def test_a_place_that_cannot_be_written_to_is_told_once(
    shown: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    shown.settings["metrics_file"] = str(tmp_path / "none" / "weft.prom")
    with shown.running() as agent:
        show = Showing(shown.config, lambda _: None)
        for _ in range(3):
            agent.polls.asked += 1
            agent.clock.wait(METRICS_SECONDS)
            show(agent)
    assert len([r for r in caplog.records if "weft.prom" in r.message]) == 1


def test_without_a_directory_in_memory_nothing_is_written(bench: Any, tmp_path: Path) -> None:
    bench.settings["run_dir"] = str(tmp_path / "none")
    with bench.running() as agent:
        assert Showing(bench.config, lambda _: None)(agent) == math.inf
    assert not (tmp_path / "none").exists()


def test_an_empty_variable_takes_figures_back(shown: Any) -> None:
    shown.settings["metrics_file"] = ""
    assert shown.config.metrics_file is None


def test_a_line_for_people(bench: Any, plane: Any, shelf: Any) -> None:
    bench.settings["models"][MODEL]["initial"] = str(shelf.weights[1])
    with bench.running() as agent:
        assert in_a_line(agent) == "digits: its first weights"
        plane.offer(shelf, shelf.wanted(2, "xor-12"))
        bench.go_on(agent)
        assert in_a_line(agent) == "digits: version 2"
        plane.offer(shelf, shelf.wanted(3, "xor-23", 9))
        plane.faults = [lambda h: "/packages/" in h.path and (h.problem(503, "x.y"), True)[1]]
        bench.go_on(agent)
        assert in_a_line(agent) == "digits: version 2, downloading version 3"
        plane.faults = [lambda h: (h.problem(503, "x.y"), True)[1]]
        agent.clock.wait(3600)
        agent.turn()
        assert in_a_line(agent).endswith("; the server does not answer")


# Status.


def flat(values: dict[str, Any], prefix: str = "") -> set[str]:
    """Every field by its path; of maps with names of the user, `models.*`."""
    found = set()
    for name, value in values.items():
        if isinstance(value, dict) and name not in ("slots", "error", "link"):
            found |= flat(value, "models." if prefix == "models." else f"{prefix}{name}.")
        else:
            found.add(prefix + name)
    return found


def test_every_field_of_the_status_is_documented(bench: Any, checkout: Path) -> None:
    text = (checkout / "docs" / "edge-agent.md").read_text(encoding="utf-8")
    assert set(documented(text, "### The status")) == flat(status(bench.config))


def test_every_figure_is_documented(shown: Any, checkout: Path, plane: Any, shelf: Any) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    with shown.running() as agent:
        live = Live.of(agent, shown.config)
        text = rendered(status(shown.config, live), live)
    kinds = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    page = (checkout / "docs" / "edge-agent.md").read_text(encoding="utf-8")
    assert kinds <= set(documented(page, "### Figures"))


def test_the_status_tells_what_only_the_running_agent_knows(
    shown: Any, plane: Any, shelf: Any
) -> None:
    before = status(shown.config)
    assert before["agent"]["running"] is False
    assert before["agent"]["last_poll_at"] is None
    held = shelf.wanted(1, "full-1").model_copy(update={"held": "outside_window"})
    plane.offer(shelf, held)
    with shown.running() as agent:
        shown.go_on(agent)
        Showing(shown.config, lambda _: None)(agent)
        during = status(shown.config)
    assert during["agent"]["running"] is True
    assert during["agent"]["last_answer_at"] >= during["agent"]["started_at"]
    assert during["models"][MODEL]["held"] == "outside_window"
    assert status(shown.config)["agent"]["running"] is False


def test_it_tells_how_the_last_update_ended_as_long_as_nothing_new_begins(
    bench: Any, plane: Any, shelf: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A log may be gone when somebody asks why a device holds on to an old version."""
    caplog.set_level(logging.INFO)
    assert status(bench.config)["models"][MODEL]["last_update"] is None
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    bench.round()
    last = status(bench.config)["models"][MODEL]["last_update"]
    assert (last["state"], last["version"], last["error"]) == ("committed", 1, None)

    bench.settings["models"][MODEL]["health_command"] = ["false"]
    plane.offer(shelf, shelf.wanted(2, "xor-12"))
    bench.round()
    bench.round()
    found = status(bench.config)["models"][MODEL]
    assert (found["state"], found["version"], found["error"]) == ("idle", 1, None)
    last = found["last_update"]
    assert (last["state"], last["version"]) == ("rolled_back", 2)
    assert last["error"]["code"] == "health.failed"
    assert last["at"].endswith("Z")
    assert f"{MODEL}: version 1 is in use again" in caplog.messages


def test_what_a_check_said_does_not_reach_the_terminal_as_it_is(
    bench: Any, plane: Any, shelf: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    bench.settings["models"][MODEL]["health_command"] = [
        "sh",
        "-c",
        r"printf 'a\nb\033[31m'; false",
    ]
    bench.round()
    said = status(bench.config)["models"][MODEL]["last_update"]["error"]["message"]
    assert "a\nb" in said
    cli._print_tree(status(bench.config), "")
    shown = capsys.readouterr().out
    assert "a | b" in shown
    assert "\033" not in shown


def test_it_knows_nothing_of_an_agent_that_works_elsewhere(shown: Any, tmp_path: Path) -> None:
    with shown.running() as agent:
        Showing(shown.config, lambda _: None)(agent)
    shown.settings["state_dir"] = str(tmp_path / "other")
    assert status(shown.config)["agent"]["started_at"] is None


def test_the_link_and_its_budget(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.link.default_interfaces", lambda _: ["wwan0"])
    shown.settings["links"] = {"radio": {"interfaces": ["wwan*"], "budget_bytes": 100_000}}
    shown.round()
    link = status(shown.config)["link"]
    assert (link["name"], link["action"], link["budget_bytes"]) == ("radio", "allow", 100_000)


def test_status_writes_nothing_and_needs_no_permission_to(shown: Any, tmp_path: Path) -> None:
    shown.round()
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    status(shown.config)
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_what_may_not_be_read_is_not_taken_for_missing(shown: Any) -> None:
    shown.round()
    identity = shown.config.state_dir / "identity.json"
    assert stat.S_IMODE(identity.stat().st_mode) == 0o600
    allowed = os.access
    refuse = lambda path, mode: mode == os.F_OK or (path != identity and allowed(path, mode))  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "access", refuse)
        with pytest.raises(AgentError) as raised:
            status(shown.config)
    assert raised.value.code == "agent.not_permitted"


def test_a_real_agent_shows_itself(shown: Any, plane: Any, shelf: Any) -> None:
    plane.interval = "0.05"
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    rests = threading.Semaphore(0)
    plane.faults = [lambda h: bool(plane.reports) and "/desired" in h.path and rests.release()]
    command = [sys.executable, "-m", "edge_agent.cli", "run"]
    with subprocess.Popen(command, env=shown.environment) as process:
        assert rests.acquire(timeout=60)
        said = subprocess.run(
            [sys.executable, "-m", "edge_agent.cli", "status", "--json"],
            env=shown.environment,
            capture_output=True,
            text=True,
        )
        process.terminate()
    told = json.loads(said.stdout)
    assert (told["agent"]["running"], told["models"][MODEL]["version"]) == (True, 1)
    assert told["agent"]["last_answer_at"] is not None
    assert figures(shown.config.metrics_file)["polls_total", ()] >= 1


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == "edge-agent 0.1.0\n"
