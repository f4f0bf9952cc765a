"""Processes of Weft that share one PostgreSQL database and one folder of blobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from server.db import open_engine

DEADLINE = 60.0  # seconds; reached only where something is broken
LOOK_INTERVAL = 0.02
TOKEN = "a-token-for-the-fleet"

#: `weft`, with changes to its modules' constants made first: shorter times than a fleet needs.
PROGRAM = "import sys; {changes}; from server.cli import main; sys.exit(main())"


class Program:
    """`weft` as a process; `said` is the first thing that it printed as JSON."""

    def __init__(self, words: list[str], log: Path, changes: str, settings: dict[str, str]) -> None:
        self.log = log
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("WEFT_")}
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM.format(changes=changes or "pass"), *words, "--json"],
                stdout=subprocess.PIPE,
                stderr=file,
                env={**inherited, **settings},
            )

    @property
    def said(self) -> Any:
        assert self.process.stdout is not None
        text = b""
        while b"}" not in text:
            line = self.process.stdout.readline()
            assert line, self.log.read_text()
            text += line
        return json.loads(text)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Exit status after a signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.communicate(timeout=DEADLINE)
        return self.process.returncode


@pytest.fixture
def engine(databases: Any, tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(databases.url(tmp_path / "server"))
    yield engine
    engine.dispose()


@pytest.fixture
def start(databases: Any, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts `weft` with some words; settings by keyword."""
    started: list[Program] = []

    def start(*words: str, changes: str = "", **settings: str) -> Program:
        common = {
            "WEFT_DATABASE_URL": databases.url(tmp_path / "server"),
            "WEFT_DATA_DIR": str(tmp_path / "server"),
            "WEFT_ENROLMENT_TOKEN": TOKEN,
            "WEFT_REQUIRE_KEYS": "false",
        }
        log = tmp_path / f"{len(started)}.log"
        started.append(Program(list(words), log, changes, common | settings))
        return started[-1]

    yield start
    for program in started:
        program.end(signal.SIGKILL)


@pytest.fixture
def wait_for() -> Callable[[str, Callable[[], Any]], Any]:
    """The first truthy thing that a look finds."""

    def wait_for(what: str, look: Callable[[], Any]) -> Any:
        end = time.monotonic() + DEADLINE
        while not (found := look()):
            assert time.monotonic() < end, f"{what}: nothing after {DEADLINE:.0f} s"
            time.sleep(LOOK_INTERVAL)
        return found

    return wait_for
