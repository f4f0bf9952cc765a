"""Every command line in the documents is one that the programs understand."""

from __future__ import annotations

import functools
import importlib
import re
import shlex
import sys
from collections.abc import Iterator

import pytest
import typer.main

MODULES = {"weft": "server.cli", "edge-agent": "edge_agent.cli"}
COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )*((?:weft|edge-agent) [^|>;&]+)")


@pytest.fixture(scope="module", autouse=True)
def _commands_are_built_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        yield


def _help(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> str:
    """What `... --help` prints: the parser has seen the whole line then; empty where it refuses."""
    monkeypatch.setattr(sys, "argv", [*words, "--help"])
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    program = importlib.import_module(MODULES[words[0]])
    try:
        status = program.main()
    except SystemExit as stop:
        status = stop.code
    printed = capsys.readouterr().out
    return printed if status in (0, None) else ""


def test_command_lines_parse(
    code_lines: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong, seen = [], set()
    for document, line in code_lines:
        match = COMMAND.fullmatch(re.sub(r"[\[\]]|\.\.\.|…", "", line).strip())
        if match is None or match[1] in seen:
            continue
        seen.add(match[1])
        words = shlex.split(match[1])
        text = _help(words, monkeypatch, capsys)
        options = [word.partition("=")[0] for word in words if word.startswith("--")]
        if not text or any(option not in text for option in options):
            wrong.append(f"{document}: {line}")
    assert not wrong
    assert any(line.startswith("weft package build") for line in seen)
    assert any(line.startswith("edge-agent apply") for line in seen)


@pytest.mark.parametrize("program", MODULES)
def test_every_command_is_documented(
    program: str,
    documents: dict,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each command that `--help` lists at the top is named somewhere in the documents."""
    text = _help([program], monkeypatch, capsys)
    names = _commands(text)
    assert names
    written = "\n".join(documents.values())
    assert not [name for name in names if f"{program} {name}" not in written]


def _commands(text: str) -> list[str]:
    """The commands in a help text, as Typer frames them and as argparse indents them."""
    framed = re.search(r"─ Commands ─.*?╰", text, re.DOTALL)
    if framed:
        return re.findall(r"^│ ([a-z][\w-]*)", framed[0], re.MULTILINE)
    return re.findall(r"^    ([a-z][\w-]*)  ", text, re.MULTILINE)
