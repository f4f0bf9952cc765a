"""The whole flow as a user has it: a server and two agents as processes, new data, new weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from server import zoo
from server.refine.weights import save_state, state_of
from shared.weights import WeightsReader

DEADLINE = 40.0  # seconds; reached only where something is broken
LOOK_INTERVAL = 0.05


def wait_for(what: str, look: Callable[[], Any]) -> Any:
    """The first truthy thing that `look` finds."""
    end = time.monotonic() + DEADLINE
    while not (found := look()):
        assert time.monotonic() < end, f"{what}: nothing after {DEADLINE:.0f} s"
        time.sleep(LOOK_INTERVAL)
    return found


class Program:
    """A console script as a process, in a group of its own with all that it starts."""

    def __init__(self, name: str, *words: str, log: Path, **settings: str) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("WEFT_")}
        command = [str(Path(sys.executable).with_name(name)), *words]
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=file,
                env={**inherited, **settings},
                start_new_session=True,
            )

    def answer(self) -> Any:
        """What it prints as JSON until it ends well."""
        out, _ = self.process.communicate(timeout=DEADLINE)
        assert self.process.returncode == 0, self.log.read_text()
        return json.loads(out)

    def is_left(self) -> bool:
        """Whether it, or a process that it started, still runs."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def end(self) -> int:
        """Exit status after a SIGTERM."""
        self.process.terminate()
        self.process.communicate(timeout=DEADLINE)
        return self.process.returncode


class Site:
    """A server and its agents in a folder."""

    def __init__(self, folder: Path, databases: Any) -> None:
        self.folder = folder
        self.programs: list[Program] = []
        self.server = self.start(
            *("weft", "serve", "--json", "--port", "0"),
            WEFT_DATA_DIR=str(folder / "server"),
            WEFT_POLL_INTERVAL="0.2",
            WEFT_DATASET_ROOTS=str(folder),
            **databases.environment(folder / "server"),
        )
        assert self.server.process.stdout is not None
        said = b""
        while b"}" not in said:
            line = self.server.process.stdout.readline()
            assert line, self.server.log.read_text()
            said += line
        begun = json.loads(said)
        self.url, self.key = begun["url"], begun["admin_key"]
        headers = {"Authorization": f"Bearer {self.key}"}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=DEADLINE, verify=False)
        asked = {"name": "all cameras", "max_uses": None}
        made = self.http.post("/api/v1/enrolment_tokens", json=asked).raise_for_status()
        self.token = made.json()["token"]

    def start(self, *words: str, **settings: str) -> Program:
        log = self.folder / f"{len(self.programs)}.log"
        self.programs.append(Program(*words, log=log, **settings))
        return self.programs[-1]

    def start_agent(self, name: str) -> Path:
        """An agent; the weights that it has in use."""
        state = self.folder / name
        self.start(
            *("edge-agent", "run"),
            WEFT_AGENT_SERVER=self.url,
            WEFT_AGENT_NAME=name,
            WEFT_AGENT_ENROLMENT_TOKEN=self.token,
            WEFT_AGENT_STATE_DIR=str(state),
            WEFT_AGENT_MODELS='{"bars": {}}',
            WEFT_AGENT_POLL_SECONDS="0.2",
        )
        return state / "models" / "bars" / "current"

    def weft(self, *words: str) -> Any:
        """What a command of `weft` answers."""
        return self.start(
            "weft", *words, "--json", WEFT_SERVER=self.url, WEFT_KEY=self.key
        ).answer()

    def ask(self, path: str) -> Any:
        return self.http.get(path).raise_for_status().json()

    def rolled_out(self, version: int) -> list[dict[str, Any]]:
        """The assignments of a rollout, once it has ended."""
        started = self.weft("rollouts", "start", "bars", str(version))
        place = f"/api/v1/rollouts/{started['id']}"
        wait_for("the rollout", lambda: self.ask(place)["state"] == "finished")
        return list(self.ask(f"{place}/assignments")["items"])


@pytest.fixture
def site(tmp_path: Path, databases: Any) -> Iterator[Site]:
    found = Site(tmp_path, databases)
    yield found
    found.http.close()
    for program in found.programs:
        if program.is_left():
            os.killpg(program.process.pid, signal.SIGKILL)
        program.process.communicate()


def save_bars(path: Path) -> str:
    """Small grey images whose class is the place of a bright bar."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 5, 120)
    images = draw.integers(0, 80, (120, 16, 16), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[3 * label : 3 * label + 3] += 150
    np.savez(path, images=images, labels=labels)
    return str(path)


def save_initial(path: Path) -> str:
    module = zoo.get("vgg_tiny").build({"in_channels": 1, "classes": 5})
    save_state(path, state_of(module))
    return str(path)


def digest_of(weights: Path) -> str:
    with WeightsReader(weights) as reader:
        return reader.digest().hex()


def test_from_new_data_to_the_same_weights_on_every_device(site: Site, tmp_path: Path) -> None:
    torch.manual_seed(0)
    in_use = [site.start_agent(name) for name in ("camera-1", "camera-2")]
    arguments = ("--argument", "in_channels=1", "--argument", "classes=5")
    site.weft("models", "create", "bars", "--architecture", "vgg_tiny", *arguments)
    site.weft("versions", "upload", "bars", save_initial(tmp_path / "initial.safetensors"))
    wait_for("both agents", lambda: len(site.ask("/api/v1/devices")["items"]) == 2)

    first = site.rolled_out(1)
    full = {package["sha256"]: package for package in site.ask("/api/v1/packages")["items"]}
    assert [a["state"] for a in first] == ["committed", "committed"]
    assert {full[a["package"]]["method"] for a in first} == {"full"}

    site.weft("datasets", "add", "bars", save_bars(tmp_path / "bars.npz"))
    learn = ("--method", "ka", "--rank", "1", "--epochs", "2", "--recipe", "threads=1")
    done = site.weft("refine", "bars", "--dataset", "bars", *learn)
    assert (done["state"], done["target"]) == ("succeeded", 2)
    package = site.ask(f"/api/v1/packages/{done['package_id']}")

    second = site.rolled_out(2)
    assert [a["state"] for a in second] == ["committed", "committed"]
    assert {a["package"] for a in second} == {package["sha256"]}
    wanted = site.ask("/api/v1/models/bars/versions/2")["weights_digest"]
    assert [digest_of(weights) for weights in in_use] == [wanted, wanted]
    held = [device["models"][0] for device in site.ask("/api/v1/devices")["items"]]
    assert {(h["weights_digest"], h["version"]) for h in held} == {(wanted, 2)}
    assert package["size_bytes"] < full[first[0]["package"]]["size_bytes"] / 4

    running = [p for p in site.programs if p.process.poll() is None]
    assert len(running) == 3
    assert [program.end() for program in reversed(running)] == [0, 0, 0]
    assert [p.log.name for p in site.programs if p.is_left()] == []
    assert "Traceback" not in "".join(p.log.read_text() for p in site.programs)
