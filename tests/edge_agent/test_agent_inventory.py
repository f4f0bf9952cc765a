"""What the agent tells of its device: at enrolment, and when it changes."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import pytest

from edge_agent import inventory
from edge_agent.agent import loop
from edge_agent.agent.loop import running
from edge_agent.config import load_config
from edge_agent.errors import ServerAway
from shared.errors import BadConfig
from shared.wire import MAX_ATTRIBUTES, Enrolment

GOOD = 'server = "https://x"\n[models.digits]\n'


def test_the_machine_and_the_configuration_are_told_at_enrolment(bench: Any, plane: Any) -> None:
    bench.settings["attributes"] = {"gpu": "orin", "host": "hall-7"}
    bench.round()
    (enrolment,) = plane.enrolments
    told = enrolment.attributes
    assert (told["gpu"], told["host"], told["machine"]) == ("orin", "hall-7", platform.machine())
    assert int(told["cores"]) == os.cpu_count()
    assert int(told["memory_mb"]) > 100
    bench.round()
    assert plane.reports == []


def test_a_change_is_told_once(bench: Any, plane: Any, shelf: Any) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    bench.round()
    plane.reports.clear()
    bench.settings["attributes"] = {"line": "3"}
    for _ in range(2):
        bench.round()
    (report,) = plane.reports
    assert (report.state, report.result, report.assignment) == ("idle", "committed", None)
    assert (report.weights_digest, report.attributes["line"]) == (shelf.digests[1], "3")
    bench.settings["attributes"] = {}
    bench.round()
    assert "line" not in plane.reports[-1].attributes


def test_an_agent_that_was_updated_says_what_it_can_do_now(
    bench: Any, plane: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.round()
    monkeypatch.setattr(inventory, "__version__", "99.0")
    for _ in range(2):
        bench.round()
    (report,) = plane.reports
    assert report.capabilities.agent == "99.0"


def test_a_model_that_is_configured_later_is_told_of(bench: Any, plane: Any, shelf: Any) -> None:
    bench.round()
    initial = bench.config.state_dir / "faces.safetensors"
    bench.settings["models"]["faces"] = {"initial": str(initial)}
    assert bench.round() == ["weights.not_found"]
    assert plane.reports == []
    with bench.running() as agent:
        assert agent.round()[1] == []
        initial.write_bytes(shelf.weights[1].read_bytes())
        for _ in range(2):
            assert agent.round()[1] == []
    told = {report.model: report.weights_digest for report in plane.reports}
    assert told == {"digits": None, "faces": shelf.digests[1]}
    assert len(plane.reports) == 2


def test_a_change_is_not_lost_while_the_server_is_away(bench: Any, plane: Any) -> None:
    bench.round()

    def away(handler: Any) -> bool:
        handler.problem(503, "service.busy")
        return True

    for line in ("3", "4"):
        bench.settings["attributes"] = {"line": line}
        plane.faults.append(away)
        with pytest.raises(ServerAway):
            bench.round()
    bench.round()
    assert [report.attributes["line"] for report in plane.reports] == ["3", "4"]
    assert [report.counter for report in plane.reports] == [1, 2]


def test_a_crash_after_telling_does_not_tell_again(
    bench: Any, plane: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.round()
    bench.settings["attributes"] = {"line": "3"}
    add = loop.Outbox.add

    def add_and_stop(*arguments: Any, **named: Any) -> None:
        add(*arguments, **named)
        raise loop.Stopped

    with monkeypatch.context() as patched, running(bench.config, bench.pauses.append) as agent:
        patched.setattr(loop.Outbox, "add", add_and_stop)
        with pytest.raises(loop.Stopped):
            agent.round()
    bench.round()
    assert [report.attributes["line"] for report in plane.reports] == ["3"]


def test_attributes_come_from_file_and_environment(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(f'{GOOD}[attributes]\ngpu = "orin"\n')
    assert load_config(path, {}).attributes == {"gpu": "orin"}
    given = {"WEFT_AGENT_ATTRIBUTES": '{"line": "3"}'}
    assert load_config(path, given).attributes == {"line": "3"}


@pytest.mark.parametrize(
    "line", ['"a b" = "x"', "gpu = 3", 'gpu = ""', 'gpu = "two\\nlines"', f'gpu = "{"x" * 201}"']
)
def test_attributes_that_cannot_be_told_are_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(f"{GOOD}[attributes]\n{line}\n")
    with pytest.raises(BadConfig, match="attributes"):
        load_config(path, {})


def test_as_many_as_can_be_configured_can_be_told(tmp_path: Path) -> None:
    lines = [f'a{number} = "x"' for number in range(60)]
    path = tmp_path / "agent.toml"
    path.write_text(GOOD + "[attributes]\n" + "\n".join(lines))
    told = inventory.attributes(load_config(path, {}).attributes)
    assert len(told) == MAX_ATTRIBUTES
    Enrolment.model_validate({"name": "cam", "token": "12345678", "attributes": told})
    path.write_text(path.read_text() + '\na60 = "x"\n')
    with pytest.raises(BadConfig, match="attributes"):
        load_config(path, {})
