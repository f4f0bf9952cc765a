"""The very command lines of the images, as processes on loopback: they do what compose wants."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.bucket import CREDENTIALS, Service
from tests.compose.files import Stage

DEADLINE = 60.0  # seconds; reached only where something is broken
LOOK_INTERVAL = 0.05


def wait_for(what: str, look: Callable[[], Any]) -> Any:
    end = time.monotonic() + DEADLINE
    while not (found := look()):
        assert time.monotonic() < end, f"{what}: nothing after {DEADLINE:.0f} s"
        time.sleep(LOOK_INTERVAL)
    return found


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class Host:
    """Runs a service's command with its environment, hosts and paths being this machine's."""

    def __init__(self, compose: Any, stages: Any, s3: Service, folder: Path, url: str) -> None:
        self._compose, self._stages, self._folder = compose, stages, folder
        self._port = free_port()
        self.own = {
            "WEFT_PORT": str(self._port),
            "WEFT_BLOBS_ENDPOINT": s3.url,
            "WEFT_DATABASE_URL": url,
            "WEFT_AGENT_SERVER": f"http://127.0.0.1:{self._port}",
            "WEFT_AGENT_POLL_SECONDS": "0.2",
            "WEFT_POLL_INTERVAL": "0.2",
            **CREDENTIALS,
        }
        self._running: list[subprocess.Popen[bytes]] = []
        key = self._environment("server")["WEFT_ADMIN_KEY"]
        headers = {"Authorization": f"Bearer {key}"}
        self.http = httpx.Client(
            base_url=self.own["WEFT_AGENT_SERVER"], headers=headers, timeout=30, verify=False
        )

    def _stage(self, name: str) -> Stage:
        stage: Stage = self._stages[self._compose["services"][name]["build"]["target"]]
        return stage

    def _environment(self, name: str) -> dict[str, str]:
        """Nothing of ours but what is needed to run at all."""
        given = self._stage(name).environment() | self._compose["services"][name]["environment"]
        moved = {k: str(self._folder / name) for k, v in given.items() if v == "/data"}
        if "WEFT_AGENT_ROOT" in given:
            moved["WEFT_AGENT_ROOT"] = str(self._here(name, given["WEFT_AGENT_ROOT"]))
        own = {k: v for k, v in self.own.items() if k in given or k.endswith(("_PORT", "SECONDS"))}
        if name == "server":
            own |= {k: self.own[k] for k in ("WEFT_POLL_INTERVAL", *CREDENTIALS)}
        agent = name.startswith("agent")
        kept = {k: v for k, v in (given | moved | own).items() if k.startswith(("WEFT_", "AWS_"))}
        kept = {k: v for k, v in kept.items() if k.startswith("WEFT_AGENT_") == agent}
        here = str(Path(sys.executable).parent)
        return {"PATH": f"{here}:{os.environ['PATH']}", **kept}

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start a service."""
        service = self._compose["services"][name]
        words = service.get("command") or self._stage(name).command("CMD")
        log = (self._folder / f"{name}.log").open("wb")
        with log:
            process = subprocess.Popen(
                words, env=self._environment(name), stdout=log, stderr=log, cwd=self._folder
            )
        self._running.append(process)
        return process

    def _here(self, name: str, path: str) -> Path:
        """Where a path of a service's volumes lies on this machine."""
        for mount in self._compose["services"][name]["volumes"]:
            volume, place = mount.split(":")[:2]
            if path.startswith(place):
                return self._folder / volume / path.removeprefix(place).strip("/")
        raise AssertionError(f"{name} has no volume for {path}")

    def run(self, name: str) -> None:
        """Run a service that ends, its paths being this machine's."""
        words = self._compose["services"][name]["command"]
        moved = [str(self._here(name, w)) if w.startswith("/") else w for w in words]
        Path(moved[-1]).mkdir()
        subprocess.run(moved, check=True)

    def is_healthy(self, name: str) -> bool:
        """The exit status of the image's health check, run as it stands."""
        words = self._stage(name).command("HEALTHCHECK")
        words[0] = sys.executable if words[0] == "python" else words[0]
        done = subprocess.run(words, env=self._environment(name), capture_output=True, check=False)
        return done.returncode == 0

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def ask(self, path: str) -> Any:
        return self.http.get(path).raise_for_status().json()

    def stop(self) -> list[int]:
        """SIGTERM to all, last started first; their exit statuses."""
        for process in reversed(self._running):
            process.terminate()
        return [process.wait(timeout=DEADLINE) for process in reversed(self._running)]

    def kill(self) -> None:
        self.http.close()
        for process in self._running:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.fixture
def host(compose: Any, stages: Any, s3: Service, tmp_path: Path, databases: Any) -> Iterator[Host]:
    url = databases.url(tmp_path / "database", migrated=False)
    (tmp_path / "database").mkdir(exist_ok=True)
    host = Host(compose, stages, s3, tmp_path, url)
    yield host
    host.kill()


def test_server_and_agents_bring_weights_to_devices(host: Host, weights_file: Any) -> None:
    server = host.start("server")
    wait_for("the server", lambda: server.poll() is not None or host.is_healthy("server"))
    assert server.poll() is None, host.log("server")
    host.run("root")
    for name in ("agent-1", "agent-2"):
        host.start(name)
    wait_for("two devices", lambda: len(host.ask("/api/v1/devices")["items"]) == 2)
    assert host.is_healthy("agent-1")

    host.http.post("/api/v1/models", json={"name": "demo"}).raise_for_status()
    headers = {"Content-Type": "application/octet-stream"}
    content = weights_file(0).read_bytes()
    uploaded = host.http.post("/api/v1/models/demo/versions", content=content, headers=headers)
    digest = uploaded.raise_for_status().json()["weights_digest"]
    host.http.post("/api/v1/rollouts", json={"model": "demo", "version": 1}).raise_for_status()

    def held() -> list[str]:
        devices = host.ask("/api/v1/devices")["items"]
        return [device["models"][0]["weights_digest"] for device in devices]

    wait_for("both devices", lambda: held() == [digest, digest])
    assert host.stop() == [0, 0, 0]
    for name in ("server", "agent-1", "agent-2"):
        assert "Traceback" not in host.log(name)


@pytest.mark.postgres("a worker stands beside a server only there")
def test_a_worker_runs_beside_the_server(host: Host) -> None:
    server = host.start("server")
    wait_for("the server", lambda: server.poll() is not None or host.is_healthy("server"))
    worker = host.start("worker")
    said = wait_for(
        "the worker", lambda: worker.poll() is not None or "at_once" in host.log("worker")
    )
    assert said
    assert worker.poll() is None, host.log("worker")
    assert host.stop() == [0, 0]


def test_a_server_that_cannot_reach_its_store_is_not_healthy(host: Host) -> None:
    host.own["WEFT_BLOBS_ENDPOINT"] = "http://127.0.0.1:9"
    server = host.start("server")
    assert server.wait(timeout=DEADLINE) == 2
    assert "[blob.unreachable]" in host.log("server")
    assert not host.is_healthy("server")


def test_health_checks_tell_a_broken_agent(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "agent-1"
    folder.mkdir()
    (folder / "identity.json").write_text(json.dumps({"server": 1}))
    assert not host.is_healthy("agent-1")
