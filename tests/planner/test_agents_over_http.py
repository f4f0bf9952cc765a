"""Real agents behind a real server: several versions behind, or with weights that nobody knows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent.loop import running
from edge_agent.config import Config
from shared.weights import WeightsReader


@pytest.fixture
def start(depot: Any, tmp_path: Path) -> Callable[[Path], Callable[[], Path]]:
    """Puts an agent into the field with these weights; each call of it is one round."""

    def with_weights(weights: Path) -> Callable[[], Path]:
        initial = tmp_path / "initial.safetensors"
        shutil.copy(weights, initial)
        config = Config.model_validate(
            {
                "server": depot.fleet.server.url,
                "name": "cam",
                "state_dir": str(tmp_path / "agent"),
                "enrolment_token": depot.fleet.server.enrolment_token,
                "models": {"m": {"initial": str(initial)}},
            }
        )

        def one_round() -> Path:
            with running(config, lambda _: None) as agent:
                assert agent.round()[1] == []
            return config.state_dir / "models" / "m" / "current"

        return one_round

    return with_weights


def device_of(depot: Any) -> Any:
    (device,) = depot.fleet.call("GET", "/api/v1/devices")["items"]
    return device | {"device_id": device["id"]}


def digest_of(path: Path) -> str:
    with WeightsReader(path) as reader:
        return reader.digest().hex()


def finish(depot: Any, one_round: Callable[[], Path], rollout: Any) -> Path:
    """Rounds until the rollout has ended."""

    def look() -> Path | None:
        current = one_round()
        state = depot.fleet.call("GET", f"/api/v1/rollouts/{rollout['id']}")["state"]
        return current if state == "finished" else None

    found: Path = depot.until(look)
    return found


def test_three_versions_behind_by_packages_that_were_made_by_themselves(
    depot: Any, weights_file: Any, start: Any
) -> None:
    one_round = start(depot.fleet.files[0])
    one_round()
    for number, parent in ((3, 1), (4, 3), (5, 4)):
        assert depot.upload(weights_file(number), parent) == number
        depot.package_between(parent, number, "xor")
    depot.fleet.release(3, 4)
    rollout = depot.fleet.roll_out(5)
    assert digest_of(finish(depot, one_round, rollout)) == depot.digests[4]
    (told,) = depot.told("assignment.offered", device_of(depot))
    made = depot.packages()
    steps = [made[(1, 3, "xor")], made[(3, 4, "xor")], made[(4, 5, "xor")]]
    assert told == {
        "way": "chain",
        "bytes": sum(package["size_bytes"] for package in steps),
        "packages": [package["id"] for package in steps],
    }
    assert (1, 5, "xor") not in made


def test_unknown_weights_become_known_by_an_upload(
    depot: Any, weights_file: Any, start: Any
) -> None:
    delivered = weights_file(7)
    one_round = start(delivered)
    one_round()
    device = device_of(depot)
    depot.allow(device, 10)
    depot.fleet.roll_out(2)
    one_round()
    depot.package_between(None, 2, "full")
    one_round()
    (*_, told) = depot.told("assignment.held", device)
    assert (told["reason"], told["unknown_weights"]) == ("over_budget", digest_of(delivered))

    # What an operator does about it: those weights, and the newer ones as their child.
    known = depot.upload(delivered)
    newer = depot.upload(weights_file(8), parent=known)
    small = depot.package_between(known, newer, "xor")
    depot.allow(device, small["size_bytes"])
    rollout = depot.fleet.roll_out(newer)
    assert digest_of(finish(depot, one_round, rollout)) == depot.digests[-1]
    (told,) = depot.told("assignment.offered", device)
    assert told == {"way": "lossless", "bytes": small["size_bytes"], "packages": [small["id"]]}
