"""The agent as a real process: killed in its states, stopped, started fresh."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from edge_agent.journal import load_journal

# Kills itself at one point: on entering a state, before or after that is on the disk.
KILLER = """
import os, signal, sys
from edge_agent import cli
from edge_agent.agent import model

when, state = sys.argv[1:3]
persist = model.persist_journal

def persist_and_die(path, journal):
    if journal.state == state and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    persist(path, journal)
    if journal.state == state and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)

model.persist_journal = persist_and_die
sys.exit(cli.main(sys.argv[3:]))
"""


def agent(bench: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_agent.cli", *arguments]
    return subprocess.run(command, env=bench.environment, capture_output=True, text=True)


def killed(bench: Any, when: str, state: str) -> int:
    command = [sys.executable, "-c", KILLER, when, state, "once"]
    return subprocess.run(command, env=bench.environment, capture_output=True).returncode


@pytest.mark.parametrize(
    ("when", "state"),
    [
        ("after", "offered"),
        ("after", "downloading"),
        ("before", "downloaded"),
        ("after", "reconstituting"),
        ("before", "staged"),
        ("after", "swapping"),
        ("before", "verifying"),
        ("after", "verifying"),
        ("after", "committed"),
        ("before", "idle"),
    ],
)
def test_killed_anywhere_it_goes_on_and_reports_once(
    bench: Any, plane: Any, shelf: Any, when: str, state: str
) -> None:
    bench.settings["models"]["digits"]["initial"] = str(shelf.weights[1])
    bench.round()
    plane.offer(shelf, shelf.wanted(2, "xor-12"))
    assert killed(bench, when, state) == -signal.SIGKILL
    assert bench.in_use() in (shelf.digests[1], shelf.digests[2])
    assert bench.round() == []
    assert bench.in_use() == shelf.digests[2]
    assert bench.leftovers() == set()
    assert [(r.counter, r.result) for r in plane.reports] == [(1, "committed")]


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_when_the_base_has_just_been_replaced(
    bench: Any, plane: Any, shelf: Any, when: str
) -> None:
    for version, package in ((1, "full-1"), (2, "xor-12"), (1, None)):
        plane.offer(shelf, shelf.wanted(version, package, plane.generation))
        assert bench.round() == []
    plane.offer(shelf, shelf.wanted(3, "xor-23", 9))
    assert killed(bench, when, "staged") == -signal.SIGKILL
    assert bench.in_use() == shelf.digests[1]
    assert bench.round() == []
    assert bench.in_use() == shelf.digests[3]


def test_killed_while_rolling_back_it_ends_on_the_old_weights(
    bench: Any, plane: Any, shelf: Any
) -> None:
    bench.settings["models"]["digits"] = {
        "initial": str(shelf.weights[1]),
        "health_command": ["false"],
    }
    plane.offer(shelf, shelf.wanted(2, "xor-12"))
    assert killed(bench, "after", "rolled_back") == -signal.SIGKILL
    assert bench.in_use() == shelf.digests[2]
    assert bench.round() == []
    assert bench.in_use() == shelf.digests[1]
    assert [r.result for r in plane.reports] == ["failed_rolled_back"]


def test_a_package_that_crashes_the_agent_is_given_up(bench: Any, plane: Any, shelf: Any) -> None:
    bench.settings["max_attempts"] = 2
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    assert killed(bench, "before", "staged") == -signal.SIGKILL
    assert killed(bench, "before", "staged") == -signal.SIGKILL
    journal = load_journal(bench.folder / "journal.json")
    assert journal is not None
    assert (journal.state, journal.attempts) == ("reconstituting", 2)
    assert bench.round() == ["agent.too_many_attempts"]
    assert plane.reports[-1].result == "failed_no_change"


def test_sigterm_in_the_middle_of_a_download_ends_cleanly(
    bench: Any, plane: Any, shelf: Any
) -> None:
    reached, release = threading.Event(), threading.Event()

    def stall(handler: Any) -> bool:
        if "/packages/" not in handler.path:
            return False
        data = handler.plane.files[handler.path.rpartition("/")[2]]
        handler.answer(200, data[:500], Content_Length=str(len(data)))
        handler.wfile.flush()
        reached.set()
        release.wait(60)
        handler.close_connection = True
        return True

    plane.faults = [stall]
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    command = [sys.executable, "-m", "edge_agent.cli", "run"]
    process = subprocess.Popen(command, env=bench.environment, stderr=subprocess.PIPE, text=True)
    assert reached.wait(60)
    process.terminate()
    _, said = process.communicate(timeout=60)
    release.set()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "stopped" in said
    assert bench.round() == []
    assert bench.in_use() == shelf.digests[1]


def test_run_goes_on_polling_until_it_is_stopped(bench: Any, plane: Any, shelf: Any) -> None:
    plane.interval = "0.05"
    plane.faults = [lambda h: (h.problem(503, "x.y"), True)[1]]
    thrice = threading.Semaphore(0)

    def count(handler: Any) -> bool:
        if "/desired" in handler.path:
            thrice.release()
        return False

    plane.faults.append(count)
    command = [sys.executable, "-m", "edge_agent.cli", "run"]
    with subprocess.Popen(command, env=bench.environment) as process:
        for _ in range(3):
            assert thrice.acquire(timeout=60)
        process.terminate()
    assert process.returncode == 0


def test_once_and_status_as_json(bench: Any, plane: Any, shelf: Any) -> None:
    before = agent(bench, "status", "--json")
    assert json.loads(before.stdout)["device_id"] is None
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    done = agent(bench, "once", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["errors"] == []
    assert said["models"]["digits"]["version"] == 1
    after = json.loads(agent(bench, "status", "--json").stdout)
    assert after["device_id"] == "device-1"
    assert after["models"]["digits"]["weights_digest"] == shelf.digests[1]
    assert Path(after["models"]["digits"]["current"]).resolve().name == "a.safetensors"
    assert plane.token not in done.stdout + done.stderr


def test_once_says_when_the_server_is_away(bench: Any) -> None:
    bench.settings["server"] = "http://127.0.0.1:9"  # discard: nothing listens
    done = agent(bench, "once", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "server.unreachable"
    assert "Traceback" not in done.stderr


def test_once_fails_where_an_update_fails(bench: Any, plane: Any, shelf: Any) -> None:
    plane.offer(shelf, shelf.wanted(2, "xor-12"))
    done = agent(bench, "once", "--json")
    assert done.returncode == 2
    assert [error["code"] for error in json.loads(done.stdout)["errors"]] == ["agent.no_base"]


def test_importing_the_commands_is_light() -> None:
    loaded = "import sys, edge_agent.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )
    assert not {"torch", "server", "fastapi", "sqlalchemy", "httpx", "numpy", "pydantic"} & set(
        done.stdout.split()
    )


def test_a_running_agent_loads_nothing_of_the_server() -> None:
    loaded = "import sys, edge_agent.agent.loop; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )
    assert not {"torch", "server", "fastapi", "sqlalchemy", "safetensors"} & set(
        done.stdout.split()
    )


def test_a_reader_that_has_seen_enough_is_no_mistake(bench: Any) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "edge_agent.cli", "status"]
    done = subprocess.run(
        command, env=bench.environment, stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
