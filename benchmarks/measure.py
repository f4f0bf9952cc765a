"""What a command costs: wall time, peak memory, bytes read and written."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """Cost of one process: seconds, bytes of peak resident memory, bytes through read and write."""

    seconds: float
    peak_bytes: int
    read_bytes: int
    written_bytes: int


def cost(command: Sequence[str], environment: dict[str, str] | None = None) -> Cost:
    """Run a command to its end; raises CalledProcessError."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL
    )
    # Its counters of bytes can only be read between its end and its burial.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    seconds = time.perf_counter() - begin
    counters = Path(f"/proc/{process.pid}/io").read_text().split()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command))
    return Cost(seconds, usage.ru_maxrss * 1024, int(counters[1]), int(counters[3]))


def machine() -> dict[str, str]:
    """Where and with what a figure was measured."""
    return {
        "processor": platform.machine(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        **{name: version(name) for name in ("weft", "numpy", "torch", "zstandard")},
    }
