"""The installed wheel does the main job: serve, enrol a device, and update it once."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.weights import write_weights


def _write_two_versions(folder: Path) -> None:
    rng = np.random.default_rng(0)
    old = rng.standard_normal((32, 48))
    new = old + 0.01 * rng.standard_normal(old.shape)
    for name, weights in ("old", old), ("new", new):
        tensors = {"layer.weight": ("F32", weights.astype(np.float32))}
        write_weights(folder / f"{name}.safetensors", tensors)


@pytest.fixture
def server(installed: Any, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The URL of a server that runs from the wheel, and the key that it begins with."""
    command = installed.command("weft", "serve", "--port", "0", "--data-dir", "server")
    with subprocess.Popen(
        command, cwd=tmp_path, env=installed.environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            url, key = (process.stdout.readline().split()[-1] for _ in range(2))
            yield url, key
        finally:
            process.terminate()


def test_one_device_is_updated_to_the_bit(
    installed: Any, server: tuple[str, str], tmp_path: Path
) -> None:
    url, key = server

    def weft(*arguments: str) -> Any:
        where = ("--server", url, "--key", key, "--json")
        done = installed.run("weft", *arguments, *where, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def agent(*arguments: str) -> str:
        done = installed.run("edge-agent", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    token = weft("tokens", "create", "bench")["token"]
    _write_two_versions(tmp_path)
    (tmp_path / "agent.toml").write_text(
        f'server = "{url}"\nname = "bench"\nenrolment_token = "{token}"\n'
        'state_dir = "device"\n[models.demo]\ninitial = "old.safetensors"\n'
    )

    weft("models", "create", "demo")
    weft("versions", "upload", "demo", "old.safetensors")
    weft("versions", "upload", "demo", "new.safetensors")
    agent("once", "--config", "agent.toml")  # enrols
    weft("packages", "build", "demo", "--base", "1", "--target", "2", "--method", "xor")
    weft("rollouts", "start", "demo", "2")
    agent("once", "--config", "agent.toml")  # updates

    wanted = weft("versions", "show", "demo", "2")["weights_digest"]
    (device,) = weft("devices", "list")["items"]
    assert agent("digest", "new.safetensors").strip().endswith(wanted)
    assert device["models"][0]["weights_digest"] == wanted
