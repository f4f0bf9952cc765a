"""A fleet with more versions, and eyes on what is offered to its devices."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from server.db import writing
from server.tables import Device, Package, Version, now

#: What an agent of today says.
TODAY = {
    "formats": [1],
    "methods": {"ka": 1, "xor": 1, "full": 1},
    "coders": ["zstd/1"],
    "dtypes": ["F32"],
    "chain": 8,
}
DEADLINE = 30.0  # seconds; reached only where something is broken


class Depot:
    """A fleet whose model has versions and packages as a test wants them."""

    def __init__(self, fleet: Any) -> None:
        self.fleet, self.digests = fleet, list(fleet.digests)

    def upload(self, path: Path, parent: int | None = None, *, new_schema: bool = False) -> int:
        """One more version; its number."""
        query = {"parent": parent} if parent else {}
        answer = self.fleet.call(
            "POST",
            "/api/v1/models/m/versions",
            params={**query, "new_schema": new_schema},
            content=path.read_bytes(),
            headers={"Content-Type": "application/octet-stream"},
        )
        self.digests.append(answer["weights_digest"])
        return int(answer["number"])

    def enrol(self, current: int | str | None, **said: Any) -> Any:
        """A device of today with a version (by number) or any weights (by digest) in use."""
        digest = self.digests[current - 1] if isinstance(current, int) else current
        return self.fleet.enrol(digest, capabilities={**TODAY, **said})

    def packages(self) -> dict[tuple[int | None, int, str], Any]:
        """What is published, by base, target and method."""
        listed = self.fleet.call("GET", "/api/v1/packages?limit=500")["items"]
        return {(p["base"], p["target"], p["method"]): p for p in listed}

    def package_between(self, base: int | None, target: int, method: str) -> Any:
        """The package, once it is there."""
        return self.until(lambda: self.packages().get((base, target, method)))

    def until(self, look: Callable[[], Any]) -> Any:
        """The first truthy thing that `look` finds."""
        end = time.monotonic() + DEADLINE
        while not (found := look()):
            assert time.monotonic() < end
            time.sleep(0.01)
        return found

    def settled_offer(self, device: Any) -> Any:
        """What a device is told once nothing is being built for it any more."""

        def look() -> Any:
            offer = self.fleet.offer(device)
            return None if offer["held"] == "package_being_built" else offer

        return self.until(look)

    def assignment(self, device: Any, rollout: Any) -> Any:
        """The device's assignment as operators see it."""
        url = f"/api/v1/rollouts/{rollout['id']}/assignments"
        items = self.fleet.call("GET", url)["items"]
        (mine,) = [a for a in items if a["device_id"] == device["device_id"]]
        return mine

    def told(self, kind: str, device: Any) -> list[Any]:
        """What the events of a kind say of a device, oldest first."""
        url = f"/api/v1/events?kind={kind}&order=oldest&device_id={device['device_id']}"
        return [event["data"] for event in self.fleet.call("GET", url)["items"]]

    def set(self, table: Any, condition: Any, **values: Any) -> None:
        """Change rows behind the server's back."""
        with writing(self.fleet.server.app.state.engine) as session:
            session.execute(update(table).where(condition).values(**values))

    def allow(self, device: Any, budget: int | None) -> None:
        """Give one device a budget of its own."""
        self.set(Device, Device.id == device["device_id"], update_budget=budget)

    def remove_package(self, sha256: str) -> None:
        """As retention does."""
        self.set(Package, Package.sha256 == sha256, state="removed", removed_at=now())

    def remove_weights(self, number: int) -> None:
        """As retention does."""
        self.set(Version, Version.number == number, removed_at=now())


@pytest.fixture
def depot(fleet: Any) -> Depot:
    return Depot(fleet)
