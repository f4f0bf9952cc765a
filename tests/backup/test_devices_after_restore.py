"""Devices that saw more than the backup: real server, real agent, an old backup."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent.loop import Agent, running
from edge_agent.config import Config
from server.backup.folder import BackupFolder
from server.backup.restore import restore
from server.backup.take import take
from server.db import open_engine
from server.storage.local import LocalStore
from shared.weights import WeightsReader

ROUNDS = 600
PAUSE = 0.02


class Lamp:
    """One device, whose server may move."""

    def __init__(self, folder: Path, token: str) -> None:
        self.folder, self._token = folder, token
        self.server = ""

    def follow(self, server: str) -> None:
        """Have the device find its server at another address, as a name in DNS would."""
        path = self.folder / "identity.json"
        if path.exists():
            told = json.loads(path.read_text()) | {"server": server}
            path.write_text(json.dumps(told))
        self.server = server

    def rounds(self, until: Callable[[], Any]) -> Any:
        """Polls of one process of the agent, until something is so; no update may fail."""
        config = Config.model_validate(
            {
                "server": self.server,
                "name": "lamp",
                "state_dir": self.folder,
                "enrolment_token": self._token,
                "models": {"m": {}},
            }
        )
        with running(config, lambda _: None) as agent:
            assert agent.recover() == []
            for _ in range(ROUNDS):
                self._one(agent)
                if found := until():
                    return found
                time.sleep(PAUSE)  # between two polls; what is awaited is looked for at each
        raise AssertionError("it does not come")

    def _one(self, agent: Agent) -> None:
        assert agent.round()[1] == []

    def in_use(self) -> str | None:
        link = self.folder / "models" / "m" / "current"
        if not link.exists():
            return None
        with WeightsReader(link) as reader:
            return reader.digest().hex()


class Site:
    """A server with a fleet of one, its backup, and the server restored from it."""

    def __init__(self, serve: Any, databases: Any, folder: Path, fleet: Any, files: Any) -> None:
        self._serve, self._databases, self._folder = serve, databases, folder
        self.fleet, self.files = fleet, files
        self.backup = BackupFolder(folder / "backup")
        self.lamp = Lamp(folder / "device", fleet.server.enrolment_token)
        self.lamp.follow(fleet.server.url)

    def update_to(self, version: int) -> None:
        self.fleet.roll_out(version)
        digest = self.fleet.digests[version - 1]
        self.lamp.rounds(lambda: self.lamp.in_use() == digest and self.held() == digest)

    def add_version(self, seed: int) -> None:
        self.fleet.digests.append(self.fleet._upload(self.files(seed)))

    def take(self) -> None:
        state = self.fleet.server.app.state
        take(state.engine, state.blobs, self.backup, lambda _: None)

    def restored(self, **settings: Any) -> Any:
        """The server that goes on from the backup; the first one is gone."""
        self.fleet.server.stop()
        data = self._folder / "restored"
        with closing(_Database(self._databases.url(data))) as database:
            restore(self.backup, database.engine, LocalStore(data / "blobs"), lambda _: None)
        keys = self.fleet.server.settings.keys_folder  # which no backup holds
        shutil.copytree(keys, data / "keys")
        self.fleet.server = self._serve(data_dir=data, **settings)
        self.lamp.follow(self.fleet.server.url)
        return self.fleet

    def device(self) -> Any:
        (device,) = self.fleet.call("GET", "/api/v1/devices")["items"]
        return device

    def held(self) -> str | None:
        return str(self.device()["models"][0]["weights_digest"])

    def kinds(self) -> set[str]:
        events = self.fleet.call("GET", "/api/v1/events?limit=200")["items"]
        return {event["kind"] for event in events}


class _Database:
    def __init__(self, url: str) -> None:
        self.engine = open_engine(url)

    def close(self) -> None:
        self.engine.dispose()


@pytest.fixture
def site(serve: Any, databases: Any, tmp_path: Path, fleet: Any, weights_file: Any) -> Site:
    return Site(serve, databases, tmp_path, fleet, weights_file)


def test_a_device_with_a_newer_version_is_brought_back_by_a_switch(site: Site) -> None:
    site.update_to(2)
    site.take()
    site.add_version(7)
    site.update_to(3)
    wanted = site.fleet.digests[1]

    fleet = site.restored()
    assert site.device()["models"][0]["state"] == "unknown"
    assert site.held() == wanted  # what the backup says, and the server will learn better
    site.lamp.rounds(lambda: "device.reported" in site.kinds())
    site.lamp.rounds(lambda: site.lamp.in_use() == wanted and site.held() == wanted)

    assert site.device()["models"][0]["state"] == "committed"
    assert {"installation.restored", "assignment.reopened"} <= site.kinds()
    assert "assignment.failed" not in site.kinds()
    events = fleet.call("GET", "/api/v1/events?limit=200")["items"]
    offers = [e["data"] for e in events if e["kind"] == "assignment.offered"]
    assert any(offer["bytes"] == 0 for offer in offers)


def test_weights_that_nobody_knows_are_replaced_within_the_budget(site: Site) -> None:
    site.update_to(2)
    site.take()
    for version, seed in ((3, 7), (4, 8)):  # then no slot holds version 2 any more
        site.add_version(seed)
        site.update_to(version)
    wanted = site.fleet.digests[1]

    site.restored(update_budget=1)

    def held() -> Any:
        rollout = site.fleet.call("GET", "/api/v1/rollouts")["items"][0]["id"]
        (its,) = site.fleet.call("GET", f"/api/v1/rollouts/{rollout}/assignments")["items"]
        return its["held"]

    site.lamp.rounds(lambda: held() == "over_budget")
    assert site.held() == site.fleet.digests[3]
    site.fleet.server.stop()
    site.fleet.server = site._serve(data_dir=site._folder / "restored")
    site.lamp.follow(site.fleet.server.url)
    site.lamp.rounds(lambda: site.lamp.in_use() == wanted and site.held() == wanted)


def test_what_was_finished_after_the_backup_is_told_once_more(site: Site) -> None:
    site.update_to(1)
    site.update_to(2)
    body = {"model": "m", "version": 1, "rollback": True}
    rollout = site.fleet.call("POST", "/api/v1/rollouts", json=body)["id"]
    site.take()

    def state() -> Any:
        return site.fleet.call("GET", f"/api/v1/rollouts/{rollout}")["state"]

    site.lamp.rounds(lambda: state() == "finished")
    site.restored()
    assert state() == "active"
    site.lamp.rounds(lambda: state() == "finished")


def test_a_report_on_an_assignment_of_after_the_backup_is_taken(site: Site) -> None:
    fleet = site.fleet
    device = fleet.enrol(fleet.digests[0])
    fleet.roll_out(2)
    site.take()
    digest = "ab" * 32
    site.restored()
    answer = fleet.report(device, 9_999_999, digest, counter=40)
    assert (answer.status_code, answer.json()) == (200, {})
    again = fleet.report(device, 9_999_999, digest, counter=40)
    assert (again.status_code, again.json()) == (200, {})
    assert site.held() == digest
    assert site.device()["models"][0]["state"] == "committed"
    lower = fleet.report(device, None, digest, counter=39)
    assert lower.json()["code"] == "device.counter_reused"


def test_nothing_heard_before_the_restore_is_taken_for_unchanged(site: Site) -> None:
    fleet = site.fleet
    device = fleet.enrol(fleet.digests[0])
    etag = fleet.poll(device).headers["etag"]
    assert fleet.poll(device, etag).status_code == 304
    site.take()
    site.restored()
    answer = fleet.poll(device, etag)
    assert (answer.status_code, answer.json()["report"]) == (200, True)
    assert answer.headers["etag"] != etag
    assert fleet.poll(device, answer.headers["etag"]).status_code == 304
