"""Signed metadata over HTTP: what a device lacks of the models that it runs, and no more."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from shared.metadata import CONTENT_TYPE, known_bytes, unpack


def ask(fleet: Any, device: Any, model: str = "m", **held: object) -> Any:
    """The whole answer."""
    url = f"/device/v1/metadata/{model}"
    return fleet.server.client.get(url, params=held, headers=device["headers"])


def version(content: bytes) -> int:
    return int(json.loads(content)["signed"]["version"])


def test_a_device_gets_what_it_lacks_and_then_nothing(fleet: Any) -> None:
    device = fleet.enrol()
    package = fleet.publish(None, 2, b"a package")
    fleet.roll_out(2)
    assert fleet.offer(device)["package"]["sha256"] == package
    first = ask(fleet, device, root=1)
    assert (first.status_code, first.headers["content-type"]) == (200, CONTENT_TYPE)
    held = {"root": device["roots"][0].encode()}
    held |= {file.role: file.content for file in unpack(first.content, known_bytes(held))}
    listed = json.loads(held["packages"])["signed"]["targets"][f"p/{package}"]
    assert listed["custom"]["result"] == fleet.digests[1]
    released = json.loads(held["targets"])["signed"]["targets"]["v/2"]
    assert released["hashes"] == {"sha256": fleet.digests[1]}

    versions = {role: version(content) for role, content in held.items()}
    nothing = ask(fleet, device, **versions)
    assert (nothing.status_code, nothing.content) == (204, b"")

    fleet.release(1)
    second = unpack(ask(fleet, device, **versions).content, known_bytes(held))
    assert [file.role for file in second] == ["timestamp", "snapshot", "targets"]


def test_the_roots_of_an_enrolment_begin_with_the_one_that_is_pinned(fleet: Any) -> None:
    device = fleet.enrol()
    first = hashlib.sha256(device["roots"][0].encode()).hexdigest()
    assert fleet.call("GET", "/api/v1/trust")["root_sha256"] == first
    assert unpack(ask(fleet, device).content)[0].content == device["roots"][0].encode()


def test_only_models_that_the_device_runs_are_told_of(fleet: Any) -> None:
    fleet.call("POST", "/api/v1/models", json={"name": "other"})
    device = fleet.enrol()
    for model in ("other", "none", "..%2f"):
        refused = ask(fleet, device, model)
        assert refused.status_code == 404
        if not model.startswith("."):
            assert refused.json()["code"] == "device.model_not_found"


def test_strangers_are_told_nothing(fleet: Any) -> None:
    refused = fleet.server.client.get("/device/v1/metadata/m")
    assert (refused.status_code, refused.json()["code"]) == (401, "device.unauthorized")


def test_versions_that_can_be_none_are_refused(fleet: Any) -> None:
    device = fleet.enrol()
    for held in (0, -1, "x", "9" * 5000):
        refused = ask(fleet, device, timestamp=held)
        assert (refused.status_code, refused.json()["code"]) == (422, "request.invalid")
    for role in ("root", "timestamp", "targets"):
        assert ask(fleet, device, **{role: 10**30}).status_code in (200, 204)
