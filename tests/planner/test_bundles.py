"""Bundles: what the server puts into one, how it comes onto a device, and back into history."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from edge_agent import bundle as bundles
from edge_agent.agent.loop import running
from edge_agent.config import Config
from server.db import reading
from server.tables import TrustMetadata, now
from shared.bundle import Bundle, BundleReader
from shared.metadata import unpack

NOWHERE = "http://127.0.0.1:9"  # discard: nothing listens


@pytest.fixture
def export(depot: Any, tmp_path: Path) -> Callable[..., Path]:
    """Makes a bundle; the file."""

    def export(version: int, **body: Any) -> Path:
        asked = {"model": "m", "version": version, **body}
        answer = depot.fleet.server.client.post("/api/v1/bundles", json=asked)
        assert answer.status_code == 200, answer.text
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.weft-bundle"
        path.write_bytes(answer.content)
        return path

    return export


def refused(depot: Any, status: int, **body: Any) -> Any:
    return depot.fleet.call("POST", "/api/v1/bundles", status, json={"model": "m", **body})["code"]


def opened(path: Path) -> Bundle:
    with path.open("rb") as file:
        return BundleReader(file, path.name).bundle


def ways(path: Path) -> list[tuple[int | None, list[str]]]:
    return [(w.base_version, [o.method for o in w.packages]) for w in opened(path).ways]


def test_a_lossless_package_is_built_where_there_is_none(depot: Any, export: Any) -> None:
    path = export(2, bases=[1])
    assert ways(path) == [(1, ["xor"])]
    assert depot.packages().keys() == {(1, 2, "xor")}
    bundle = opened(path)
    assert (bundle.model, bundle.version, bundle.weights_digest) == ("m", 2, depot.digests[1])


def test_the_cheapest_of_what_is_published_is_taken(depot: Any, export: Any) -> None:
    small = depot.fleet.publish(1, 2, b"small")
    assert [o.sha256 for o in opened(export(2, bases=[1])).offers] == [small]


def test_chains_up_to_a_length(depot: Any, export: Any, weights_file: Any) -> None:
    assert depot.upload(weights_file(3), 2) == 3
    depot.fleet.publish(1, 2, b"one")
    depot.fleet.publish(2, 3, b"two")
    depot.fleet.release(2)
    assert ways(export(3, bases=[1])) == [(1, ["ka", "ka"])]
    assert ways(export(3, bases=[1], chain=1)) == [(1, ["xor"])]


def test_several_ways_share_their_packages(depot: Any, export: Any, weights_file: Any) -> None:
    assert depot.upload(weights_file(3), 2) == 3
    depot.fleet.publish(1, 2, b"one")
    depot.fleet.publish(2, 3, b"two")
    depot.fleet.release(2)
    path = export(3, bases=[2, 1, 2], full=True)
    assert ways(path) == [(1, ["ka", "ka"]), (2, ["ka"]), (None, ["full"])]
    assert len(opened(path).offers) == 3


def test_a_full_one_never_stands_in_for_a_way(depot: Any, export: Any) -> None:
    depot.fleet.publish(None, 2, b"f")  # the cheapest of all
    assert ways(export(2, bases=[1])) == [(1, ["xor"])]
    assert ways(export(2)) == [(None, ["full"])]


def members(path: Path) -> dict[str, dict[str, Any]]:
    """What the metadata in it say, by role; of roots the last one."""
    with path.open("rb") as file:
        packed = BundleReader(file, path.name).metadata()
    return {f.role: json.loads(f.content)["signed"] for f in unpack(packed)}


def test_its_metadata_list_what_is_in_it_and_nothing_else(depot: Any, export: Any) -> None:
    depot.fleet.publish(None, 2, b"of no use here")
    small = depot.fleet.publish(1, 2, b"small")
    found = members(export(2, bases=[1]))
    assert set(found) == {"root", "timestamp", "snapshot", "targets", "packages"}
    assert set(found["targets"]["targets"]) == {"v/2"}
    assert set(found["packages"]["targets"]) == {f"p/{small}"}


def test_it_holds_as_long_as_was_asked_for_whatever_the_server_goes_on_to_sign(
    depot: Any, export: Any
) -> None:
    for days in (90, 200):
        asked = {} if days == 90 else {"valid_days": days}
        found = members(export(2, bases=[1], **asked))
        ends = {datetime.fromisoformat(found[role]["expires"]) for role in found}
        assert min(ends) > now() + timedelta(days=days, minutes=-5)
    with reading(depot.fleet.server.app.state.engine) as session:
        newest = {row.role: row.version for row in session.scalars(select(TrustMetadata))}
    assert all(newest[r] > found[r]["version"] for r in ("timestamp", "snapshot", "packages"))


def test_what_ends_sooner_cannot_be_made_to_last(depot: Any) -> None:
    assert refused(depot, 422, version=2, valid_days=3650) == "repository.ends_sooner"


def test_exporting_releases_where_the_key_is_at_hand(depot: Any, export: Any) -> None:
    export(2)
    shown = depot.fleet.call("GET", "/api/v1/models/m/versions/2")
    assert shown["released_at"] is not None


def test_nothing_is_exported_that_is_not_released(serve: Any, weights_file: Any) -> None:
    from tests.conftest import Fleet

    fleet = Fleet(serve(auto_release=False), [weights_file(0), weights_file(1)])
    body = {"model": "m", "version": 2}
    assert fleet.call("POST", "/api/v1/bundles", 409, json=body)["code"] == "version.not_released"
    fleet.release(2)
    assert fleet.server.client.post("/api/v1/bundles", json=body).status_code == 200
    fleet.call("POST", "/api/v1/models/m/versions/2/withdraw")
    assert fleet.call("POST", "/api/v1/bundles", 409, json=body)["code"] == "version.withdrawn"


def test_what_cannot_be_made(depot: Any) -> None:
    assert refused(depot, 404, version=9) == "version.not_found"
    assert refused(depot, 404, version=2, bases=[7]) == "version.not_found"
    assert refused(depot, 422, version=2, bases=[2]) == "update.no_way"
    assert refused(depot, 422, version=2, bases=[0]) == "request.invalid"
    depot.remove_weights(1)
    assert refused(depot, 422, version=2, bases=[1]) == "update.no_way"
    assert refused(depot, 410, version=1) == "version.removed"


class Field:
    """A device with a real agent; `online` says whether it reaches the server."""

    def __init__(self, depot: Any, folder: Path) -> None:
        self._depot, self._folder, self.online = depot, folder, True

    @property
    def config(self) -> Config:
        # The address stays the same, so the token does; the way there is cut.
        proxy = "" if self.online else NOWHERE
        return Config.model_validate(
            {
                "server": self._depot.fleet.server.url,
                "name": "cam",
                "state_dir": str(self._folder / "agent"),
                "run_dir": str(self._folder / "none"),
                "enrolment_token": self._depot.fleet.server.enrolment_token,
                "proxy": proxy,
                "models": {"m": {"initial": str(self._depot.fleet.files[0])}},
            }
        )

    def round(self) -> list[str]:
        with running(self.config, lambda _: None) as agent:
            return [error.code for error in agent.round()[1]]

    def apply(self, path: Path) -> list[str]:
        with bundles.opened(path) as reader, running(self.config, lambda _: None) as agent:
            return [error.code for error in bundles.install(agent, self.config, reader)]

    @property
    def device(self) -> Any:
        (listed,) = self._depot.fleet.call("GET", "/api/v1/devices")["items"]
        return self._depot.fleet.call("GET", f"/api/v1/devices/{listed['id']}")

    @property
    def version(self) -> int | None:
        (model,) = [m for m in self.device["models"] if m["model"] == "m"]
        return model["version"]  # type: ignore[no-any-return]


@pytest.fixture
def field(depot: Any, tmp_path: Path) -> Field:
    """A device that is enrolled, and then out of reach."""
    found = Field(depot, tmp_path)
    assert found.round() == []
    found.online = False
    return found


def test_installed_out_of_reach_it_is_reported_when_back(
    depot: Any, export: Any, field: Field
) -> None:
    path = export(2, bases=[1])
    assert field.apply(path) == []
    assert field.version == 1  # as far as the server knows
    field.online = True
    assert field.round() == []
    assert field.version == 2
    (told,) = [t for t in depot.told("device.reported", field_id(field)) if t.get("version")]
    assert (told["version"], told["result"]) == (2, "committed")
    assert told["weights_digest"] == depot.digests[1]


def field_id(field: Field) -> Any:
    return {"device_id": field.device["id"]}


def test_an_open_assignment_to_that_version_ends_as_committed(
    depot: Any, export: Any, field: Field
) -> None:
    path = export(2, bases=[1])
    rollout = depot.fleet.roll_out(2)
    assert field.apply(path) == []
    field.online = True
    assert field.round() == []
    assert depot.assignment(field_id(field), rollout)["state"] == "committed"
    state = depot.fleet.call("GET", f"/api/v1/rollouts/{rollout['id']}")["state"]
    assert state == "finished"
    # It came with the bundle: nothing was downloaded for it.
    assert not [t for t in depot.told("assignment.offered", field_id(field)) if t["bytes"]]


def test_a_bundle_of_another_version_does_not_end_the_assignment(
    depot: Any, export: Any, field: Field, weights_file: Any
) -> None:
    assert depot.upload(weights_file(3), 2) == 3
    path = export(3, bases=[1])
    rollout = depot.fleet.roll_out(2)
    assert field.apply(path) == []
    field.online = True
    field.round()
    assert depot.assignment(field_id(field), rollout)["state"] != "committed"


def test_a_device_without_the_base_keeps_what_it_has(
    depot: Any, export: Any, field: Field, weights_file: Any
) -> None:
    assert depot.upload(weights_file(3), 2) == 3
    path = export(3, bases=[2])
    with pytest.raises(bundles.BadBundle) as raised:
        field.apply(path)
    assert raised.value.code == "bundle.no_way"
    assert depot.digests[1][:12] in raised.value.message
    field.online = True
    field.round()
    assert field.version == 1
