"""Real agents and a real server: waiting, renewing, a copied card, and the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from edge_agent.agent.loop import running
from edge_agent.agent.status import status
from edge_agent.config import Config
from edge_agent.errors import AgentError
from edge_agent.heavy.inline import Inline
from server.db import writing
from server.tables import Device, now
from shared.errors import WeftError
from tests.conftest import Fleet

Given = dict[str, Any]


@pytest.fixture
def config(fleet: Fleet, tmp_path: Path) -> Callable[..., Config]:
    """Settings of an agent with the first version; its own state for each `name`."""
    initial = tmp_path / "initial.safetensors"
    shutil.copy(fleet.files[0], initial)

    def config(name: str = "cam", **changes: Any) -> Config:
        given = {
            "server": fleet.server.url,
            "name": name,
            "state_dir": str(tmp_path / name),
            "enrolment_token": fleet.server.enrolment_token,
            "models": {"m": {"initial": str(initial)}},
        }
        return Config.model_validate(given | changes)

    return config


def one_round(config: Config) -> list[str]:
    """An agent that is started, polls once, and ends; the codes of what went wrong."""
    with running(config, lambda _: None, heavy=Inline()) as agent:
        return [e.code for e in (*agent.recover(), *agent.round()[1])]


def copied(config: Config, name: str) -> Config:
    """The same device once more, as from a copied card."""
    place = config.state_dir.with_name(name)
    shutil.copytree(config.state_dir, place, symlinks=True)
    return config.model_copy(update={"state_dir": place})


def the_device(fleet: Fleet) -> Any:
    (found,) = fleet.call("GET", "/api/v1/devices")["items"]
    return found


def order(fleet: Fleet, what: str) -> Any:
    return fleet.call("POST", f"/api/v1/devices/{the_device(fleet)['id']}/{what}")


def test_a_device_that_waits_is_served_once_it_is_accepted(
    fleet: Fleet, config: Callable[..., Config]
) -> None:
    token = fleet.call("POST", "/api/v1/enrolment_tokens", json={"name": "t", "accept": "by_hand"})
    waiting = config(enrolment_token=token["token"])
    assert one_round(waiting) == []
    assert the_device(fleet)["standing"] == "pending"
    changed = waiting.model_copy(update={"attributes": {"line": "3"}})
    assert one_round(changed) == []
    assert status(changed)["pending_reports"] == 1
    order(fleet, "accept")
    assert one_round(changed) == []
    assert status(changed)["pending_reports"] == 0
    assert the_device(fleet)["attributes"]["line"] == "3"


def test_a_token_that_has_ended_is_renewed_in_passing(
    fleet: Fleet, config: Callable[..., Config]
) -> None:
    assert one_round(config()) == []
    with writing(fleet.server.app.state.engine) as session:
        session.execute(update(Device).values(token_expires_at=now() - timedelta(seconds=2)))
    assert one_round(config()) == []
    assert one_round(config()) == []
    renewed = fleet.call("GET", "/api/v1/events?kind=device.token_renewed")["items"]
    assert [event["data"] for event in renewed] == [{"renewal": 1}]


def test_a_copied_card_is_held_and_a_new_key_shuts_the_copy_out(
    fleet: Fleet, config: Callable[..., Config]
) -> None:
    original = config()
    one_round(original)
    copy = copied(original, "copy")
    for agent, line in ((original, "3"), (copy, "4")):
        one_round(agent.model_copy(update={"attributes": {"line": line}}))
    shown = the_device(fleet)
    assert (shown["standing"], shown["attributes"]["line"]) == ("cloned", "3")
    assert status(copy)["pending_reports"] == 1
    with running(original, lambda _: None, heavy=Inline()) as agent:
        agent.round()
        assert agent.hold == "cloned"

    made = order(fleet, "reenrol")
    (original.state_dir / "device.key").unlink()
    right = config(enrolment_token=made["token"], attributes={"line": "5"})
    assert one_round(right) == []
    shown = the_device(fleet)
    assert (shown["standing"], shown["attributes"]["line"]) == ("accepted", "5")
    with pytest.raises(WeftError) as refused:
        one_round(copy)
    assert (refused.value.code, the_device(fleet)["standing"]) == ("server.refused", "accepted")
    assert one_round(right) == []


def test_a_device_that_was_put_back_goes_on_once_somebody_has_said_so(
    fleet: Fleet, config: Callable[..., Config]
) -> None:
    device = config()
    one_round(device)
    image = copied(device, "image")
    for line in "12":
        one_round(device.model_copy(update={"attributes": {"line": line}}))
    back = image.model_copy(update={"attributes": {"line": "7"}})
    one_round(back)
    assert the_device(fleet)["standing"] == "cloned"
    order(fleet, "accept")
    assert one_round(back) == []
    assert the_device(fleet)["attributes"]["line"] == "7"
    assert status(back)["pending_reports"] == 0


def test_reports_that_were_lost_on_the_device_are_numbered_on(
    fleet: Fleet, config: Callable[..., Config]
) -> None:
    device = config(attributes={"line": "1"})
    one_round(device)
    one_round(config(attributes={"line": "2"}))
    for name in ("reports.json", "identity.json"):
        (device.state_dir / name).unlink()
    one_round(config(attributes={"line": "3"}))
    one_round(config(attributes={"line": "4"}))
    shown = the_device(fleet)
    assert (shown["standing"], shown["attributes"]["line"]) == ("accepted", "4")


def test_a_decommissioned_device_keeps_its_weights(
    fleet: Fleet, config: Callable[..., Config]
) -> None:
    one_round(config())
    before = status(config())["models"]["m"]["weights_digest"]
    order(fleet, "decommission")
    with pytest.raises(AgentError) as refused:
        one_round(config())
    assert refused.value.code == "agent.decommissioned"
    assert status(config())["models"]["m"]["weights_digest"] == before == fleet.digests[0]
