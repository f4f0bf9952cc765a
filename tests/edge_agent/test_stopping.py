"""SIGTERM strikes the real agent anywhere: it ends at once and well, and the next one goes on."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

#: Sends itself SIGTERM at the n-th call of a Python function after the signal handlers are set, or
#: when the update is reported; says how many calls there were.
STRUCK = """
import os, signal, sys
from edge_agent import cli, commands
from edge_agent.report import Outbox

at, calls = int(sys.argv[1]), 0
real, send = commands.end_on_signals, Outbox.send

def count(frame, event, _):
    global calls
    if event == "call":
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGTERM)

def begin(*given):
    real(*given)
    sys.setprofile(count)

def send_and_end(self, api):
    waited = self.pending
    send(self, api)
    if waited and at == 0:
        os.kill(os.getpid(), signal.SIGTERM)

commands.end_on_signals, Outbox.send = begin, send_and_end
status = cli.main(["run"])
sys.setprofile(None)
print(calls)
sys.exit(status)
"""
POINTS = 12


def run(bench: Any, at: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", STRUCK, str(at)]
    return subprocess.run(
        command, env=bench.environment, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def begin(bench: Any, plane: Any, shelf: Any) -> Callable[[], None]:
    """Makes an enrolled device at version 1, which is offered version 2."""
    model = bench.settings["models"]["digits"]
    model["initial"] = str(shelf.weights[1])
    model["health_command"] = ["true"]

    def begin() -> None:
        if bench.config.state_dir.exists():
            shutil.rmtree(bench.config.state_dir)
        plane.interval = "0.05"
        plane.offer(shelf, None)
        assert bench.round() == []
        plane.offer(shelf, shelf.wanted(2, "xor-12"))
        plane.reports.clear()

    return begin


def test_it_ends_well_wherever_it_is(bench: Any, plane: Any, shelf: Any, begin: Any) -> None:
    begin()
    whole = run(bench, 0)
    assert (whole.returncode, [r.result for r in plane.reports]) == (0, ["committed"])
    calls = int(whole.stdout)
    draw = random.Random(4)
    for turn in range(POINTS):
        begin()
        # One point in each part of the way.
        at = 1 + (turn * calls + draw.randrange(calls)) // POINTS
        done = run(bench, at)
        said = f"at call {at} of {calls}: {done.stderr}"
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), said
        assert bench.in_use() in (shelf.digests[1], shelf.digests[2]), said
        assert bench.round() == [], said
        assert (bench.in_use(), bench.leftovers()) == (shelf.digests[2], set()), said
        # At least once: of the same counter and bytes, the server takes the first.
        told = {(report.counter, report.result) for report in plane.reports}
        assert [result for _, result in told] == ["committed"], said
