"""The server process is killed with SIGKILL while a refinement runs: nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from server.settings import Settings

#: A server reduced to its queue. Its child opens the FIFO and keeps it open as long as it lives.
SERVER = """
import sys, threading
from pathlib import Path
from server.db import open_engine
from server.jobs.supervisor import Supervisor
from server.settings import Settings

class Work:
    def prepare(self, refinement_id, folder):
        (folder / "child.py").write_text(CHILD)
        return [sys.executable, "-I", "-S", str(folder / "child.py"), str(folder), FIFO]

    def finish(self, refinement_id, folder):
        raise AssertionError("the child never succeeds here")

settings = Settings(data_dir=Path(DATA), database_url=URL)
Supervisor(settings, open_engine(settings.url), Work()).start()
threading.Event().wait()
"""
CHILD = """
import os, pathlib, sys, threading
def leave_with_the_server():
    sys.stdin.read()
    os._exit(4)
threading.Thread(target=leave_with_the_server, daemon=True).start()
fifo = open(sys.argv[2], "w")
pathlib.Path(sys.argv[1], "checkpoint").write_text("half")
fifo.write("training\\n"); fifo.flush()
threading.Event().wait()
"""
RESUMED = """
assert pathlib.Path(sys.argv[1], "checkpoint").read_text() == "half"
"""


def test_child_ends_with_the_server_and_goes_on_with_the_next(
    settings: Settings, enqueue: Any, supervise: Any, until: Any, tmp_path: Path
) -> None:
    job = enqueue()
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    data, url = str(settings.data_dir), settings.url
    names = f"CHILD, FIFO, DATA, URL = {CHILD!r}, {str(fifo)!r}, {data!r}, {url!r}\n"
    server = subprocess.Popen([sys.executable, "-c", names + SERVER])
    with fifo.open() as alive:
        assert alive.readline() == "training\n"
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        assert alive.read() == ""  # the end of the pipe: the child has gone
    row = until(job, lambda row: row.state == "running")
    assert row.attempts == 1
    supervise(RESUMED, lost_after=1)
    row = until(job, lambda row: row.finished_at is not None)
    assert (row.state, row.attempts) == ("succeeded", 2)
