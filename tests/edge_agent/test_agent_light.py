"""The agent's own process stays small: what needs numpy happens in its children."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from edge_agent.agent.loop import running
from edge_agent.errors import AgentError
from edge_agent.heavy import About
from edge_agent.heavy.inline import Inline
from shared.wire import DESIRED_PATH

#: The issue's limit for an idle agent; it also holds while an update is made.
MOST_RESIDENT_BYTES = 64 << 20
HEAVY = ("numpy", "torch", "openblas")


def test_a_whole_update_leaves_the_process_light(bench: Any, plane: Any, shelf: Any) -> None:
    bench.settings["models"]["digits"]["initial"] = str(shelf.weights[1])
    plane.interval = "0.05"
    plane.offer(shelf, shelf.wanted(2, "xor-12"))
    rests = threading.Semaphore(0)

    def polls_again(handler: Any) -> bool:
        if plane.reports and "/desired" in handler.path:
            rests.release()
        return False

    plane.faults.append(polls_again)
    command = [sys.executable, "-m", "edge_agent.cli", "run"]
    with subprocess.Popen(command, env=bench.environment) as process:
        assert rests.acquire(timeout=60)
        proc = Path(f"/proc/{process.pid}")
        maps, status = (proc / "maps").read_text(), (proc / "status").read_text()
        process.terminate()
    assert [report.result for report in plane.reports] == ["committed"]
    assert bench.in_use() == shelf.digests[2]
    assert not [name for name in HEAVY if name in maps]
    assert int(status.partition("VmHWM:")[2].split()[0]) * 1024 < MOST_RESIDENT_BYTES


class Dying(Inline):
    """Dies of the first question, as a child that is killed."""

    def __init__(self) -> None:
        self.has_died = False

    def about(self) -> About:
        if self.has_died:
            return super().about()
        self.has_died = True
        return About([], {}, [], [], AgentError("worker_died", "killed by SIGKILL"))


class Asked(Inline):
    """Notes how often the server had been polled when each question came."""

    def __init__(self, plane: Any) -> None:
        self._plane = plane
        self.polls_before: list[int] = []

    def about(self) -> About:
        self.polls_before.append(len(self._plane.asked(DESIRED_PATH)))
        return super().about()


def test_the_first_poll_does_not_wait_for_what_the_machine_can_do(bench: Any, plane: Any) -> None:
    bench.round()  # enrolled: that does wait for it
    plane.requests.clear()
    heavy = Asked(plane)
    with running(bench.config, bench.pauses.append, heavy=heavy) as agent:
        agent.turn()
    assert heavy.polls_before[0] == 1


def test_a_child_that_was_killed_does_not_count_as_what_the_machine_can_do(
    bench: Any, plane: Any
) -> None:
    bench.round()
    bench.settings["attributes"] = {"line": "3"}
    plane.interval = "0"
    with running(bench.config, bench.pauses.append, heavy=Dying()) as agent:
        agent.round()
        assert plane.reports == []
        agent.round()
    (report,) = plane.reports
    assert report.attributes["line"] == "3"
    assert "xor" in report.capabilities.methods
