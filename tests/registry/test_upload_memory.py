"""An upload goes to the disk as it comes: the memory of a real server does not grow with it."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

MIB = 1024**2
SIZE = 128 * MIB
#: A piece on its way in, one on its way to the disk, a tensor's piece in float64, and some slack.
MOST = 48 * MIB


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """`weft serve` as a process of its own."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("WEFT_")}
    ours = {"WEFT_DATA_DIR": str(tmp_path / "server"), "WEFT_REQUIRE_KEYS": "false"}
    weft = str(Path(sys.executable).with_name("weft"))
    command = [weft, "serve", "--json", "--port", "0"]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, env=inherited | ours
        ) as process,
    ):
        assert process.stdout is not None
        said = b""
        while b"}" not in said:
            line = process.stdout.readline()
            assert line, (tmp_path / "log").read_text()
            said += line
        url = json.loads(said)["url"]
        with httpx.Client(base_url=url, timeout=60) as client:
            yield process, client
        process.terminate()


def peak_of(process: subprocess.Popen[bytes]) -> int:
    """Bytes of memory that a process has taken at most, so far."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def weights(size: int) -> Iterator[bytes]:
    """A safetensors file of one tensor, made while it is sent."""
    entry = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    header = json.dumps({"large.weight": entry}).encode()
    yield struct.pack("<Q", len(header)) + header
    for _ in range(size // MIB):
        yield bytes(MIB)


def upload(client: httpx.Client, size: int) -> httpx.Response:
    kind = {"Content-Type": "application/octet-stream"}
    query = {"new_schema": "true"}
    path = "/api/v1/models/m/versions"
    return client.post(path, params=query, content=weights(size), headers=kind)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_an_upload(
    serving: tuple[subprocess.Popen[bytes], httpx.Client],
) -> None:
    process, client = serving
    client.post("/api/v1/models", json={"name": "m"}).raise_for_status()
    assert upload(client, MIB).status_code == 201  # what is imported at the first upload is there
    before = peak_of(process)
    assert upload(client, SIZE).status_code == 201
    grown = peak_of(process) - before
    assert grown < MOST, f"{grown / MIB:.0f} MiB for {SIZE / MIB:.0f} MiB"
