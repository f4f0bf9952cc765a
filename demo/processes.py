"""The demo's real processes: one server, two agents, each with its log under var/demo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from server.cli.client import Client
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


@dataclass(frozen=True)
class Started:
    """A server that answers. `key`: the admin key that it made at its first start.

    `token`: lets any number of devices enrol, and pins the root that they believe.
    """

    url: str
    key: str
    token: str


@contextmanager
def running(
    command: list[str], log: Path, stdout: int | None = None, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the length of a with-block; ended by SIGTERM, then by SIGKILL."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=stdout or file, stderr=file, env={**os.environ, **environment}
        )
    try:
        yield process
    finally:
        if process.stdout is not None:
            process.stdout.close()
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
def server(folder: Path, roots: str, **more: str) -> Iterator[Started]:
    """A new Weft server on loopback, as it is by default: it makes its own keys, and asks for them.

    The admin key is kept in the file `admin.key` of the folder, for whoever looks at it later.
    """
    settings = {
        "WEFT_DATA_DIR": str(folder / "server"),
        "WEFT_POLL_INTERVAL": "1",
        "WEFT_DATASET_ROOTS": roots,
        **more,
    }
    log = folder / "server.log"
    command = [_program("weft"), "serve", "--port", "0", "--json"]
    with running(command, log, subprocess.PIPE, **settings) as process:
        assert process.stdout is not None
        said = _said(process.stdout, log)
        url, key = said["url"], said["admin_key"]
        _persist_key(folder / "admin.key", key)
        with Client(url, key) as client:
            asked = {"name": "demo", "max_uses": None, "expires_in_seconds": 86_400}
            token = client.post("/enrolment_tokens", asked)["token"]
        yield Started(url, key, token)


def _said(stdout: Iterable[bytes], log: Path) -> dict[str, str]:
    """The JSON that the server prints once it answers."""
    text = b""
    for line in stdout:
        text += line
        if line.rstrip() == b"}":
            found: dict[str, str] = json.loads(text)
            return found
    raise DemoFailed("died", f"the server ended at once; its log is {log}")


def _persist_key(path: Path, key: str) -> None:
    path.touch(mode=0o600)
    path.write_text(f"{key}\n")


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
