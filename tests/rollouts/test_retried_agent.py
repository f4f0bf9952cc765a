"""Devices that an operator has retried, or that went back by hand, played by a real agent."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from edge_agent.agent.loop import running
from edge_agent.config import Config

DEADLINE = 30.0  # seconds; reached only where something is broken


def config_of(fleet: Any, folder: Path, health_command: list[str]) -> Config:
    initial = folder / "initial.safetensors"
    shutil.copy(fleet.files[0], initial)
    model = {"initial": str(initial), "health_command": health_command}
    return Config.model_validate(
        {
            "server": fleet.server.url,
            "name": "cam",
            "state_dir": str(folder / "agent"),
            "enrolment_token": fleet.server.enrolment_token,
            "models": {"m": model},
        }
    )


def state_of(fleet: Any, rollout: Any) -> str | None:
    items = fleet.call("GET", f"/api/v1/rollouts/{rollout['id']}/assignments")["items"]
    return items[0]["state"] if items else None


def rounds_until(wanted: str, agent: Any, fleet: Any, rollout: Any) -> None:
    end = time.monotonic() + DEADLINE
    while state_of(fleet, rollout) != wanted:
        assert time.monotonic() < end, state_of(fleet, rollout)
        agent.round()
        time.sleep(0.02)  # devices that ask without a pause are told to wait


def test_a_device_that_failed_tries_again_once_it_is_retried(fleet: Any, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    config = config_of(fleet, tmp_path, ["test", "-e", str(ready)])
    with running(config, lambda _: None) as agent:
        agent.round()
        rollout = fleet.roll_out(2)
        rounds_until("rolled_back", agent, fleet, rollout)
        again = f"/api/v1/rollouts/{rollout['id']}/retry"
        fleet.call("POST", again, json={})
        rounds_until("rolled_back", agent, fleet, rollout)  # the second time it only had to switch
        ready.touch()
        agent.round()  # what has failed is not tried again by itself
        assert state_of(fleet, rollout) == "rolled_back"
        fleet.call("POST", again, json={})
        rounds_until("committed", agent, fleet, rollout)


def test_somebody_on_the_device_goes_back_and_the_server_believes_it(
    fleet: Any, tmp_path: Path
) -> None:
    config = config_of(fleet, tmp_path, ["true"])
    with running(config, lambda _: None) as agent:
        agent.round()
        rollout = fleet.roll_out(2)
        rounds_until("committed", agent, fleet, rollout)
        agent.go_back("m")
        agent.round()
        assert state_of(fleet, rollout) == "rolled_back"
        agent.round()  # it stays there, and nothing is offered again
    (device,) = fleet.call("GET", "/api/v1/devices")["items"]
    (held,) = device["models"]
    assert (held["version"], held["assignment"], device["failures"]) == (1, None, 0)
    found = fleet.call("GET", "/api/v1/events?kind=assignment.rolled_back")["items"]
    assert [event["data"]["error"]["code"] for event in found] == ["agent.rolled_back_by_hand"]
