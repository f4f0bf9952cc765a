"""A `weft` to call, small weights, and a real server process on a free port."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main

from server.cli import run
from server.cli.commands import app
from shared.weights import write_weights


@dataclass(frozen=True)
class Done:
    """What one command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def code(self) -> str:
        """The code of the error that `--json` printed."""
        return json.loads(self.err)["error"]["code"]


@pytest.fixture(scope="session", autouse=True)
def _commands_are_built_once() -> Iterator[None]:
    """A process builds the tree of its commands once; one that runs hundreds need not do more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture
def weft(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Done]:
    monkeypatch.delenv("WEFT_SERVER", raising=False)

    def weft(*words: object) -> Done:
        status = run(app, [str(word) for word in words])
        return Done(status, *capsys.readouterr())

    return weft


def save_weights(path: Path, shift: float = 0.0) -> Path:
    """A small linear network; `shift` moves a tenth of it."""
    rng = np.random.Generator(np.random.PCG64(7))
    W = rng.standard_normal((12, 20)).astype(np.float32)
    W[:, ::10] += np.float32(shift)
    bias = np.full(12, shift, np.float32)
    write_weights(path, {"fc.weight": ("F32", W), "fc.bias": ("F32", bias)})
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_weights(tmp_path / "base.safetensors")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return save_weights(tmp_path / "target.safetensors", 0.25)


#: Most tests are of other matters than keys.
OPEN = {"WEFT_REQUIRE_KEYS": "false"}


class ServerProcess:
    """`weft serve` as a process of its own; `url` once it answers."""

    def __init__(self, data: Path, *words: str, **environment: str) -> None:
        command = [sys.executable, "-c", "from server.cli import main; raise SystemExit(main())"]
        # Buffered as for any other user: the first line must come all the same.
        left_out = ("WEFT_", "PYTHONUNBUFFERED")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
        self.process = subprocess.Popen(
            [*command, "serve", "--json", "--port", "0", "--data-dir", str(data), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**inherited, "WEFT_LOG_LEVEL": "warning", **OPEN, **environment},
        )

    @property
    def url(self) -> str:
        return str(self.said["url"])

    @property
    def said(self) -> Any:
        """What it prints once it answers."""
        assert self.process.stdout is not None
        text = ""
        while "}" not in text:
            line = self.process.stdout.readline()
            assert line, self.process.stderr and self.process.stderr.read()
            text += line
        return json.loads(text)

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """End it; its exit status and what it said on stderr."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, lasting_databases: Any) -> Iterator[str]:
    """URL of a server that the session's tests share."""
    data = tmp_path_factory.mktemp("server")
    process = ServerProcess(data, **lasting_databases.environment(data))
    yield process.url
    status, err = process.stop()
    assert (status, err) == (0, "")


@pytest.fixture
def start_server(tmp_path: Path, databases: Any) -> Iterator[Callable[..., ServerProcess]]:
    started: list[ServerProcess] = []

    def start(data: Path, *words: str, **environment: str) -> ServerProcess:
        chosen = {**databases.environment(data), **environment}
        started.append(ServerProcess(data, *words, **chosen))
        return started[-1]

    yield start
    for process in started:
        process.stop(signal.SIGKILL)


@pytest.fixture
def ask(weft: Any, server: str) -> Any:
    """A command to the shared server, with its answer as JSON."""
    return lambda *words: weft(*words, "--json", "--server", server)


@pytest.fixture
def model(ask: Any, base: Path, target: Path, request: pytest.FixtureRequest) -> str:
    """A model of its own for each test, with two versions."""
    module = request.module.__name__.rpartition(".")[2].removeprefix("test_")
    name = f"{module}-{request.node.name}"[:60].replace("[", "-").replace("]", "")
    assert ask("models", "create", name).status == 0
    for path in (base, target):
        assert ask("versions", "upload", name, path).status == 0
    return name
