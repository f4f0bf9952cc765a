"""The log: one line an event, with its level for the journal, and without secrets."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_agent import cli, logs


def record(level: int, text: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("edge_agent", level, "", 0, text, arguments, None)


def test_a_line_has_its_level_and_no_more_lines() -> None:
    said = logs.OneLine().format(record(logging.WARNING, "it said %s", "a\nERROR b\x1b[31m\r\nü"))
    assert said == "WARNING it said a | ERROR b\\x1b[31m | ü"


def test_what_was_raised_is_on_the_same_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        found = record(logging.ERROR, "unexpected")
        found.exc_info = sys.exc_info()
    said = logs.OneLine().format(found)
    assert said.startswith("ERROR unexpected | Traceback")
    assert said.endswith("ValueError: two | lines")
    assert "\n" not in said


def agent(bench: Any, *arguments: str, journal: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the agent with a pipe as its standard error, which may be the journal's."""
    reader, writer = os.pipe()
    found = os.fstat(writer)
    stream = f"{found.st_dev}:{found.st_ino}" if journal else "1:1"
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent.cli", *arguments],
        env={**bench.environment, "JOURNAL_STREAM": stream},
        stdout=subprocess.PIPE,
        stderr=writer,
        text=True,
    )
    os.close(writer)
    with os.fdopen(reader) as said:
        done.stderr = said.read()
    return done


def test_the_journal_is_told_the_levels(bench: Any, plane: Any, shelf: Any) -> None:
    plane.offer(shelf, shelf.wanted(2, "xor-12"))
    said = agent(bench, "once", journal=True).stderr.splitlines()
    assert "<6>INFO enrolled as device device-1" in said
    assert any(line.startswith("<7>DEBUG digits: offered") for line in said)
    assert any(line.startswith("<3>ERROR digits: no slot holds") for line in said)
    assert all(line[0] == "<" and line[2] == ">" for line in said)


def test_errors_of_commands_too(bench: Any, tmp_path: Path) -> None:
    said = agent(bench, "run", "--config", str(tmp_path / "none"), journal=True).stderr
    assert said.startswith("<3>error: ")
    assert agent(bench, "run", "--config", str(tmp_path / "none")).stderr.startswith("error: ")


def test_a_whole_update_tells_no_secret(bench: Any, plane: Any, shelf: Any) -> None:
    bench.settings["proxy"] = "http://me:open-sesame@127.0.0.1:9"
    first = agent(bench, "once")
    bench.settings["proxy"] = ""
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    second = agent(bench, "once")
    assert (first.returncode, second.returncode) == (2, 0), second.stderr
    said = first.stderr + first.stdout + second.stderr + second.stdout
    for secret in (plane.token, plane.enrolment_token, "open-sesame"):
        assert secret not in said
    assert "verifying -> committed" in said


@pytest.mark.parametrize(
    "words", [["--json"], ["nope", "--json"], ["status", "--json", "--bogus"], ["digest", "--json"]]
)
def test_wrong_arguments_as_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["code"] == "config.invalid"
    assert "edge-agent" in captured.err


@pytest.mark.parametrize("words", [[], ["nope"], ["status", "--bogus"], ["digest"]])
def test_wrong_arguments_for_people(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err[:18]) == ("", "usage: edge-agent ")


def test_without_any_configuration_the_place_for_it_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("edge_agent.config.DEFAULT_PATH", tmp_path / "agent.toml")
    assert cli.main(["status"]) == 1
    assert str(tmp_path / "agent.toml") in capsys.readouterr().err
