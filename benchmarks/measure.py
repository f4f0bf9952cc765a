"""What a command costs: wall time, peak memory, bytes read and written.

    python -S measure.py COMMAND...     prints the cost as JSON

The kernel counts the memory of the process that starts a command into the command's peak, so a
command is started by a bare interpreter, not by the benchmark with all its libraries.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence


def cost(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, float]:
    """Seconds, peak_bytes (resident), read_bytes and written_bytes (through system calls).

    Raises CalledProcessError where the command fails.
    """
    launcher = [sys.executable, "-S", __file__, *command]
    done = subprocess.run(
        launcher, env={**os.environ, **environment}, check=True, stdout=subprocess.PIPE
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _launch(command: list[str]) -> int:
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    # The counters of bytes can only be read between the end of a process and its burial.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    seconds = time.perf_counter() - begin
    with open(f"/proc/{process.pid}/io") as file:  # noqa: PTH123  # pathlib takes memory
        counters = dict(line.split(": ") for line in file.read().splitlines())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    spent = {
        "seconds": seconds,
        "peak_bytes": usage.ru_maxrss * 1024,
        "read_bytes": int(counters["rchar"]),
        "written_bytes": int(counters["wchar"]),
    }
    print(json.dumps(spent))
    return process.returncode


def machine() -> dict[str, str]:
    """Where and with what a figure was measured."""
    import platform
    from importlib.metadata import version

    return {
        "processor": platform.machine(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        **{name: version(name) for name in ("weft", "numpy", "torch", "zstandard")},
    }


if __name__ == "__main__":
    sys.exit(_launch(sys.argv[1:]))
