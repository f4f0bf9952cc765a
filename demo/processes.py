"""The demo's real processes: one server, two agents, each with its log under var/demo."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, TypeVar

import httpx

from shared.errors import OperationError

_T = TypeVar("_T")
STOP_SECONDS = 10


class DemoFailed(OperationError):
    """A process of the demo did not do its part."""

    area = "demo"
    codes: ClassVar[dict[str, str]] = {
        "died": "Read its log.",
        "too_slow": "Read the logs under var/demo.",
    }


@contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the length of a with-block; ended by SIGTERM, then by SIGKILL."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, **environment}
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(what: str, look: Callable[[], _T | None], seconds: float) -> _T:
    """The first thing that `look` finds; raises DemoFailed after `seconds`."""
    end = time.monotonic() + seconds
    while (found := look()) is None:
        if time.monotonic() > end:
            raise DemoFailed("too_slow", f"{what}: nothing after {seconds:.0f} s")
        time.sleep(0.1)
    return found


@contextmanager
def server(folder: Path, port: int, roots: str, **more: str) -> Iterator[tuple[str, str]]:
    """A Weft server on loopback; gives its address and the token with which devices enrol."""
    token, address = secrets.token_hex(16), f"http://127.0.0.1:{port}"
    settings = {
        "WEFT_DATA_DIR": str(folder / "server"),
        "WEFT_PORT": str(port),
        "WEFT_ENROLMENT_TOKEN": token,
        "WEFT_REQUIRE_KEYS": "false",
        "WEFT_POLL_INTERVAL": "1",
        "WEFT_DATASET_ROOTS": roots,
        **more,
    }
    log = folder / "server.log"
    with running([_program("weft"), "serve"], log, **settings) as process:

        def ready() -> bool | None:
            if process.poll() is not None:
                raise DemoFailed("died", f"the server ended at once; its log is {log}")
            try:
                return httpx.get(f"{address}/healthz").is_success or None
            except httpx.TransportError:
                return None

        wait_for("the server", ready, 30)
        yield address, token


@contextmanager
def agent(
    folder: Path,
    name: str,
    address: str,
    token: str,
    model: str,
    poll_seconds: float = 1,
    more: Sequence[str] = (),
) -> Iterator[Path]:
    """An edge agent; gives the path of the weights that it has in use.

    `more` are lines of its configuration, those of the model first.
    """
    state = folder / name
    config = folder / f"{name}.toml"
    lines = [
        f'server = "{address}"',
        f'name = "{name}"',
        f'enrolment_token = "{token}"',
        f'state_dir = "{state}"',
        f"poll_seconds = {poll_seconds}",
        f"[models.{model}]",
        *more,
    ]
    config.write_text("\n".join(lines) + "\n")
    config.chmod(0o600)
    command = [_program("edge-agent"), "run", "--config", str(config)]
    with running(command, folder / f"{name}.log"):
        yield state / "models" / model / "current"


def _program(name: str) -> str:
    """A console script of the environment that the demo runs in."""
    return str(Path(sys.executable).with_name(name))


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
