"""The server and the agent of `make soak-edge`, as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from edge_agent.journal import load_journal
from shared.weights import WeightsReader, write_weights
from shared.wire import pinned

MODEL, TOKEN = "field", "a-token-for-the-soak"
#: A network of 2.3 million weights, of which 200,000 move a little with each version.
SHAPES = {"body.weight": (512, 380), "head.weight": (10, 512), "trunk.weight": (2048, 1024)}
MOVING = ("body.weight", "head.weight")
#: What a mode needs beside its name.
MODES: dict[str, dict[str, Any]] = {
    "ab": {},
    "inplace": {"storage": "inplace", "runtime": {"kind": "file", "holds_copy": True}},
}


class SoakFailed(Exception):
    """The run has shown that something does not hold."""


class Server:
    """A server with versions of one model, and a lossless package from each to the next."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=60)
        self.digests: dict[int, str] = {}
        self.sizes: dict[int, int] = {}

    @property
    def token(self) -> str:
        """What agents enrol with."""
        return pinned(TOKEN, self.ask("GET", "/api/v1/trust")["root_sha256"])

    def publish(self, folder: Path, versions: int) -> None:
        """Upload versions, the first as `1.safetensors` in the folder, and build the packages."""
        self.ask("POST", "/api/v1/models", json={"name": MODEL})
        draw = np.random.default_rng(0)
        tensors = {name: draw.standard_normal(shape, "f4") for name, shape in SHAPES.items()}
        for number in range(1, versions + 1):
            path = folder / f"{number}.safetensors"
            write_weights(path, {name: ("F32", values) for name, values in tensors.items()})
            self._upload(number, path.read_bytes())
            if number > 1:
                path.unlink()
            for name in MOVING:
                tensors[name] += draw.standard_normal(SHAPES[name], "f4") * np.float32(1e-3)

    def _upload(self, number: int, data: bytes) -> None:
        place = f"/api/v1/models/{MODEL}/versions" + (f"?parent={number - 1}" if number > 1 else "")
        headers = {"Content-Type": "application/octet-stream"}
        self.digests[number] = self.ask("POST", place, content=data, headers=headers)[
            "weights_digest"
        ]
        if number > 1:
            order = {"model": MODEL, "base": number - 1, "target": number, "method": {"id": "xor"}}
            self.sizes[number] = self.ask("POST", "/api/v1/packages", json=order)["size_bytes"]

    def want(self, version: int) -> Callable[[], str | None]:
        """Start a rollout; gives what tells the result of its one device, None before the end."""
        rollout = self.ask("POST", "/api/v1/rollouts", json={"model": MODEL, "version": version})
        place = f"/api/v1/rollouts/{rollout['id']}/assignments"

        def result() -> str | None:
            items = self.ask("GET", place)["items"]
            told = items[0]["result"] if items else None
            return None if told is None else str(told)

        return result

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """What the server answers; raises SoakFailed where it refuses."""
        answer = self.http.request(method, path, **request)
        if not answer.is_success:
            raise SoakFailed(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server as it is shipped, on a folder of its own."""
    settings = {
        "WEFT_DATA_DIR": str(folder / "server"),
        "WEFT_ENROLMENT_TOKEN": TOKEN,
        "WEFT_REQUIRE_KEYS": "false",
        "WEFT_POLL_INTERVAL": "2",
    }
    process = subprocess.Popen(
        [_program("weft"), "serve", "--json", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=(folder / "server.log").open("wb"),
        env=_environment(settings),
    )
    try:
        assert process.stdout is not None
        said = b""
        while b"}" not in said:
            said += process.stdout.readline() or b"}"
        server = Server(json.loads(said)["url"])
        yield server
        server.http.close()
    finally:
        process.terminate()
        process.communicate()


class Agent:
    """One agent after the other on the same state directory."""

    def __init__(self, folder: Path, mode: str, url: str, token: str) -> None:
        self.state, self._log = folder / mode, folder / f"{mode}.log"
        model = {"initial": str(folder / "1.safetensors"), **MODES[mode]}
        self._environment = _environment(
            {
                "WEFT_AGENT_SERVER": url,
                "WEFT_AGENT_NAME": mode,
                "WEFT_AGENT_ENROLMENT_TOKEN": token,
                "WEFT_AGENT_STATE_DIR": str(self.state),
                "WEFT_AGENT_MODELS": json.dumps({MODEL: model}),
                "WEFT_AGENT_POLL_SECONDS": "2",
                "WEFT_AGENT_LOG_LEVEL": "debug",
            }
        )

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """A process; killed with the block."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [_program("edge-agent"), "run"],
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @property
    def folder(self) -> Path:
        """Where the model lies."""
        return self.state / "models" / MODEL

    def in_use(self) -> str | None:
        """The digest of what `current` leads to, if it leads anywhere."""
        link = self.folder / "current"
        if not link.exists():
            return None
        with WeightsReader(link) as reader:
            return reader.digest().hex()

    def state_name(self) -> str:
        """The state in which its journal stands."""
        journal = load_journal(self.folder / "journal.json")
        return journal.state if journal else "before the first journal"


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _environment(settings: dict[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WEFT_")}
    return {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **settings}
