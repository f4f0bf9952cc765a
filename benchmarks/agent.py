"""What the agent costs as a process: at its start, while nothing is to do, during an update.

All figures are the kernel's, of the real `edge-agent run` against a server on loopback.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.plane import MODEL, Plane, serving
from shared.wire import PACKAGES_PATH, DesiredModel

KIB = 1024
#: What the start is held against, as `python -c`.
BARE = {"python": "pass", "libraries": "import httpcore, pydantic"}
#: What an agent would hold that does all by itself, once it has found out what it can decode.
_ALONE = """
import edge_agent.agent.loop, pathlib
from edge_agent.heavy.inline import Inline
Inline().about()
print(pathlib.Path("/proc/self/smaps_rollup").read_text())
"""
#: Other versions, measured where `tests/interpreters` has made environments for them.
PYTHONS = ("3.10", "3.13")
_SAMPLE_SECONDS = 0.002


@contextmanager
def agent(plane: Plane, state: Path, python: str, **settings: str) -> Iterator[int]:
    """Run an agent; gives its process id."""
    environment = {
        **os.environ,
        "WEFT_AGENT_SERVER": plane.url,
        "WEFT_AGENT_ENROLMENT_TOKEN": plane.token,
        "WEFT_AGENT_STATE_DIR": str(state),
        "WEFT_AGENT_MODELS": json.dumps({MODEL: {}}),
        "WEFT_AGENT_LOG_LEVEL": "warning",
        **settings,
    }
    command = [python, "-m", "edge_agent.cli", "run"]
    with subprocess.Popen(command, env=environment) as process:
        yield process.pid
        process.terminate()


def start(state: Path, python: str) -> dict[str, float]:
    """Seconds from the start of the process to the first poll, and of bare interpreters beside it.

    The device is known to the server already. `alone_bytes`: see `_ALONE`.
    """
    found = {}
    for name, code in BARE.items():
        begin = time.perf_counter()
        subprocess.run([python, "-c", code], check=True)
        found[name] = time.perf_counter() - begin
    alone = subprocess.run([python, "-c", _ALONE], check=True, capture_output=True, text=True)
    found["alone_bytes"] = _figure(alone.stdout, "Rss")
    with serving(interval=60) as plane:
        with agent(plane, state, python):
            plane.polls.get(timeout=60)
        begin = time.perf_counter()
        with agent(plane, state, python):
            found["first_poll"] = plane.polls.get(timeout=60) - begin
    return found


def idle(state: Path, python: str, polls: int, interval: float) -> dict[str, float]:
    """Memory in bytes once the agent rests, and seconds of a processor for each poll."""
    with serving(interval) as plane, agent(plane, state, python) as pid:
        for _ in range(10):
            plane.polls.get(timeout=60)
        before = _processor_seconds(pid)
        for _ in range(polls):
            plane.polls.get(timeout=60)
        spent = _processor_seconds(pid) - before
        return {"poll_seconds": spent / polls, **memory(pid)}


def waiting(state: Path, python: str, seconds: float) -> float:
    """Seconds of a processor in each second between two polls."""
    with serving(interval=600) as plane, agent(plane, state, python) as pid:
        plane.polls.get(timeout=60)
        _wait_for_rest(pid)
        before = _processor_seconds(pid)
        time.sleep(seconds)
        return (_processor_seconds(pid) - before) / seconds


def update(
    folder: Path, state: Path, python: str, base: Path, package: dict[str, Any]
) -> dict[str, float]:
    """Seconds and peaks in bytes of one whole update: of the agent, of its children, of both.

    A peak of both is the sum of the peaks, each at its own time: at least what it really was.
    """
    models = json.dumps({MODEL: {"initial": str(base)}})
    with (
        serving(interval=0.2) as plane,
        agent(plane, state, python, WEFT_AGENT_MODELS=models) as pid,
    ):
        for _ in range(3):
            plane.polls.get(timeout=60)
        _wait_for_rest(pid)
        idle_bytes = memory(pid)["rss"]
        begin = time.perf_counter()
        plane.want(_wanted(package), folder / package["method"])
        child = 0.0
        while plane.reports.empty():
            child = max(child, _largest_child(pid))
            time.sleep(_SAMPLE_SECONDS)
        seconds = time.perf_counter() - begin
        result = plane.reports.get().result
        if result != "committed":
            raise RuntimeError(f"{package['method']}: {result}")
        own = _status(pid, "VmHWM")
    return {
        "seconds": seconds,
        "idle_bytes": idle_bytes,
        "own_bytes": own,
        "child_bytes": child,
        "tree_bytes": own + child,
    }


def memory(pid: int) -> dict[str, float]:
    """Resident and proportional set size in bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    return {name.lower(): _figure(text, name) for name in ("Rss", "Pss")}


def pythons(checkout: Path) -> dict[str, str]:
    """Other interpreters with what a device needs, as tests/interpreters has made them."""
    found = {version: checkout / f"build/python{version}/bin/python" for version in PYTHONS}
    return {version: str(path) for version, path in found.items() if path.exists()}


def spread(values: list[float], unit: float = 1.0, digits: int = 2) -> str:
    """Median, minimum and maximum."""
    scaled = [value / unit for value in values]
    middle = f"{statistics.median(scaled):.{digits}f}"
    return f"{middle} ({min(scaled):.{digits}f} to {max(scaled):.{digits}f})"


def _wanted(package: dict[str, Any]) -> DesiredModel:
    offer = {
        "sha256": package["sha256"],
        "size": package["size"],
        "url": f"{PACKAGES_PATH}/{package['sha256']}",
        "base_digest": package["base_digest"],
        "method": package["method"],
    }
    return DesiredModel.model_validate(
        {
            "model": MODEL,
            "version": 2,
            "weights_digest": package["result_digest"],
            "assignment": 1,
            "package": offer,
        }
    )


def _processor_seconds(pid: int) -> float:
    """Time on a processor, by the scheduler's own count."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="utf-8").split()[0]) / 1e9


def _wait_for_rest(pid: int) -> None:
    """Until no child is left of the agent's start."""
    while _children(pid):
        time.sleep(0.01)


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    return [int(child) for child in listed.split()]


def _largest_child(pid: int) -> float:
    return max((_status(child, "VmHWM") for child in _children(pid)), default=0.0)


def _status(pid: int, name: str) -> float:
    """A figure of /proc/PID/status in bytes; 0 for a process that has just ended."""
    with suppress(OSError):
        return _figure(Path(f"/proc/{pid}/status").read_text(encoding="utf-8"), name)
    return 0.0


def _figure(text: str, name: str) -> float:
    """Bytes, from a file of /proc that counts kB; 0 where it does not say."""
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * KIB if found else 0.0
