"""The server under load: the real app by `weft serve`'s own way, and an empty route beside.

    python -m benchmarks.load.serving      settings come from WEFT_* variables, as for `weft serve`

The empty route is what any route of this app costs at least: FastAPI, the same middleware, an
`async def` that does nothing. It stands right behind the polls' route, so both are found as fast.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi import FastAPI, Response

from server.settings import Settings
from shared.wire import DESIRED_PATH

EMPTY_PATH = "/empty"
TICKS = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 20


def with_empty_route(settings: Settings) -> FastAPI:
    """The server's app with a route that does nothing."""
    from server.app import create_app

    app = create_app(settings)
    app.add_api_route(EMPTY_PATH, _empty, include_in_schema=False)
    routes = app.router.routes
    polls = next(n for n, route in enumerate(routes) if getattr(route, "path", "") == DESIRED_PATH)
    routes.insert(polls + 1, routes.pop())
    return app


async def _empty() -> Response:
    return Response(status_code=204)


class Server:
    """A server process."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port
        self.url = f"http://127.0.0.1:{port}"

    def cpu_seconds(self) -> float:
        """User and system time of the process so far."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / TICKS

    def resident_bytes(self, peak: bool = False) -> int:
        """Memory of the process now, or at its peak so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return int(fields["VmHWM" if peak else "VmRSS"].split()[0]) * 1024

    def wait_until_idle(self) -> None:
        """Let what a server does at its start come to an end."""
        for _ in range(30):
            before = self.cpu_seconds()
            time.sleep(0.5)
            if self.cpu_seconds() - before < 0.05:
                return

    def children(self) -> list[int]:
        """Processes that it started: refinements."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


@contextmanager
def serving(folder: Path, database_url: str, **settings: str) -> Iterator[Server]:
    """A server on a free port of loopback, on that database, for the length of a with-block."""
    environment = {
        "WEFT_DATA_DIR": str(folder),
        "WEFT_DATABASE_URL": database_url,
        "WEFT_PORT": "0",
        "WEFT_REQUIRE_KEYS": "false",
        # All requests come from one address here; the polls' own limit stays as it is.
        "WEFT_RATE_OTHERS": "0",
        "WEFT_RATE_ENROLMENTS": "0",
        "WEFT_LOG_LEVEL": "warning",
        "OMP_NUM_THREADS": "1",
        **settings,
    }
    command = [sys.executable, "-m", "benchmarks.load.serving"]
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        server = Server(process, _port(process.stdout))
        server.wait_until_idle()
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _port(stdout: Iterable[str]) -> int:
    """Where the server listens, from the JSON that it prints once it does."""
    text = ""
    for line in stdout:
        text += line
        if line.rstrip() == "}":
            return int(json.loads(text)["url"].rpartition(":")[2])
    raise RuntimeError("the server did not start; its words are above")


def main() -> None:
    """Serve until SIGTERM; prints the URL as JSON."""
    from server.cli.serve import run
    from server.settings import load_settings

    run(load_settings(), as_json=True, make=with_empty_route)


if __name__ == "__main__":
    main()
