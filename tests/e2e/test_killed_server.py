"""A server killed with SIGKILL at its worst moments: the next one has all or nothing, and goes on.

The operator's script is the same before and after the kill, with the same Idempotency-Keys: upload
a version, build a package to it, start a rollout. Whatever was done is not done twice, and whatever
was lost is done again; the end is always the same.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from sqlalchemy import inspect, select, text

from server.db import open_engine, reading
from server.storage.local import LocalStore
from server.tables import Package, Version
from shared.weights import write_weights
from tests.device_keys import DeviceKey

pytestmark = pytest.mark.sqlite("the database is copied as a file")

TOKEN = "a-token-for-the-fleet"
DEVICES = 3
OCTETS = {"Content-Type": "application/octet-stream"}

#: A server that kills itself at the commit of the first transaction that inserts into a table:
#: `before` (all of it is lost) or `after` (all of it is there, and nobody was told).
DOOMED = """
import os, signal, sys
from sqlalchemy import Engine, event
import server.cli

table, moment = sys.argv[1:3]
marked = set()

@event.listens_for(Engine, "before_cursor_execute")
def look(connection, cursor, statement, *rest):
    if statement.startswith(f"INSERT INTO {table} "):
        marked.add(connection)

def die(connection):
    if connection in marked:
        os.kill(os.getpid(), signal.SIGKILL)

@event.listens_for(Engine, "commit")
def commit(connection):
    if moment == "before":
        die(connection)
    if connection in marked:
        event.listen(connection.engine.pool, "reset", lambda *_: die(connection))

sys.argv = ["weft", "serve", "--json", "--port", "0"]
sys.exit(server.cli.main())
"""


class Site:
    """A data folder, and the operator's script against whatever server runs on it."""

    def __init__(self, folder: Path, weights: list[Path], devices: list[str] | None = None) -> None:
        self.folder, self.weights = folder, weights
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("WEFT_")},
            "WEFT_DATA_DIR": str(folder / "server"),
            "WEFT_ENROLMENT_TOKEN": TOKEN,
            "WEFT_REQUIRE_KEYS": "false",
        }
        self.devices = devices or []  # their tokens

    @contextmanager
    def serving(self, *command: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
        """A server process, and a client of it; killed at the end if it still runs."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env=self.environment
            )
        assert process.stdout is not None
        said = b""
        while b"}" not in said:
            line = process.stdout.readline()
            assert line, (self.folder / "log").read_text()
            said += line
        client = httpx.Client(base_url=json.loads(said)["url"], timeout=30, verify=False)
        try:
            yield process, client
        finally:
            client.close()
            process.kill()
            process.communicate()

    def sound(self) -> Any:
        """A server as it is shipped."""
        weft = str(Path(sys.executable).with_name("weft"))
        return self.serving(weft, "serve", "--json", "--port", "0")

    def prepare(self) -> None:
        """A model with one version, and devices that run it."""
        with self.sound() as (_, client):
            _ask(client, "POST", "/api/v1/models", json={"name": "m"})
            digest = self.upload(client, 0)["weights_digest"]
            for number in range(DEVICES):
                held = {"m": {"slots": [digest], "current": digest}}
                body = {"name": f"d{number}", "token": TOKEN, "models": held}
                request = DeviceKey().enrolment(body)
                self.devices.append(_ask(client, "POST", "/device/v1/enrol", **request)["token"])

    def upload(self, client: httpx.Client, number: int) -> Any:
        return _ask(
            client,
            "POST",
            "/api/v1/models/m/versions" + ("?parent=1" if number else ""),
            content=self.weights[number].read_bytes(),
            headers={**OCTETS, "Idempotency-Key": f"upload-{number}"},
        )

    def script(self, client: httpx.Client) -> dict[str, Any]:
        """What the operator does, and what the devices are told in the end."""
        version = self.upload(client, 1)["number"]
        order = {"model": "m", "base": 1, "target": version, "method": {"id": "direct"}}
        package = _ask(
            client, "POST", "/api/v1/packages", json=order, headers={"Idempotency-Key": "package"}
        )
        wanted = {"model": "m", "version": package["target"]}
        rollout = _ask(
            client, "POST", "/api/v1/rollouts", json=wanted, headers={"Idempotency-Key": "rollout"}
        )
        offers = [_offer(client, token) for token in self.devices]
        packages = {o["package"]["sha256"] for o in offers}
        for sha256 in packages:
            url = f"/device/v1/packages/{sha256}"
            body = client.get(url, headers=_bearer(self.devices[0])).raise_for_status().content
            assert len(body) == package["size_bytes"]
        shown = _ask(client, "GET", f"/api/v1/rollouts/{rollout['id']}")
        return {
            "version": version,
            "target": package["target"],
            "package": package["sha256"],
            "offered": packages,
            "rollouts": len(_ask(client, "GET", "/api/v1/rollouts")["items"]),
            "assignments": shown["assignments"],
        }

    def check(self) -> None:
        """The database is sound, and every row's blob is in the store."""
        store = LocalStore(self.folder / "server" / "blobs")
        engine = open_engine(f"sqlite:///{self.folder / 'server' / 'weft.db'}")
        with reading(engine) as session:
            assert session.scalar(text("PRAGMA integrity_check")) == "ok"
            assert session.execute(text("PRAGMA foreign_key_check")).all() == []
            named = {
                *session.scalars(select(Version.blob)),
                *session.scalars(select(Package.sha256)),
            }
        assert "events" in inspect(engine).get_table_names()
        engine.dispose()
        for sha256 in named:
            assert store.size(sha256) > 0
        assert list(store.unfinished.iterdir()) == []


def _ask(client: httpx.Client, method: str, path: str, **request: Any) -> Any:
    answer = client.request(method, path, **request)
    assert answer.is_success, answer.text
    return answer.json()


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _offer(client: httpx.Client, token: str) -> Any:
    """The device's offer, once nothing holds it any more."""
    end = time.monotonic() + 30
    while True:
        [model] = client.get("/device/v1/desired", headers=_bearer(token)).json()["models"] or [{}]
        if model.get("package"):
            return model
        assert time.monotonic() < end, model
        time.sleep(0.02)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that its server has left: to be copied."""
    folder = tmp_path_factory.mktemp("prepared")
    weights = [folder / "0.safetensors", folder / "1.safetensors"]
    for path, shift in zip(weights, (0.0, 0.25), strict=True):
        matrix = np.arange(96, dtype=np.float32).reshape(8, 12) / 96 + np.float32(shift)
        write_weights(path, {"fc.weight": ("F32", matrix)})
    site = Site(folder, weights)
    site.prepare()
    return site


@pytest.fixture
def site(prepared: Site, tmp_path: Path) -> Site:
    shutil.copytree(prepared.folder / "server", tmp_path / "server")
    return Site(tmp_path, prepared.weights, prepared.devices)


EXPECTED = {"version": 2, "target": 3, "rollouts": 1}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("table", ["versions", "packages", "rollouts", "assignments"])
def test_killed_at_a_commit_it_ends_as_if_nothing_had_been(
    site: Site, serve: Any, table: str, moment: str
) -> None:
    with site.serving(sys.executable, "-c", DOOMED, table, moment) as (process, client):
        with pytest.raises(httpx.TransportError):
            site.script(client)
        assert process.wait(30) == -signal.SIGKILL
    site_ends_well(site, serve)


def test_killed_in_the_middle_of_an_upload_it_leaves_nothing(site: Site, serve: Any) -> None:
    unfinished = site.folder / "server" / "blobs" / "tmp"
    body = site.weights[1].read_bytes()
    with site.sound() as (process, client):
        address = urlsplit(str(client.base_url))
        head = (
            f"POST /api/v1/models/m/versions?parent=1 HTTP/1.1\r\nHost: {address.netloc}\r\n"
            f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection((address.hostname, address.port)) as wire:
            wire.sendall(head.encode() + body[: len(body) // 2])
            end = time.monotonic() + 30
            while not any(unfinished.iterdir()):
                assert time.monotonic() < end
            process.kill()
            process.wait()
    assert len(list(unfinished.iterdir())) == 1
    site_ends_well(site, serve)


def site_ends_well(site: Site, serve: Any) -> None:
    """The next server, and the operator's script once more."""
    server = serve(data_dir=site.folder / "server", enrolment_token=TOKEN)
    found = site.script(server.client)
    server.stop()
    assert {name: found[name] for name in EXPECTED} == EXPECTED
    assert sum(found["assignments"].values()) == DEVICES
    assert found["offered"] == {found["package"]}
    site.check()
