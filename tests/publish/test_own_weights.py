"""Weights that were trained elsewhere: their packages, lossless by themselves, lossy on request."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sqlalchemy import update
from torch import nn

from server import app as app_module
from server import zoo
from server.db import reading, writing
from server.publish.automatic import missing_packages
from server.refine.weights import save_state, state_of
from server.registry.opening import open_dataset
from server.tables import Dataset, Version, now
from tests.conftest import Fleet

ARCHITECTURE, MODULE = "operators_nets:net", "operators_nets"
BINARY = {"Content-Type": "application/octet-stream"}
DEADLINE = 30.0  # seconds; reached only where something is broken


def until(look: Callable[[], Any]) -> Any:
    end = time.monotonic() + DEADLINE
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def packages(client: Any) -> list[tuple[int | None, int, str]]:
    listed = client.get("/api/v1/packages").json()["items"]
    return [(p["base"], p["target"], p["method"]) for p in listed]


def upload(client: Any, model: str, path: Path, parent: int | None) -> None:
    query = {"parent": parent} if parent else {}
    url = f"/api/v1/models/{model}/versions"
    answer = client.post(url, params=query, content=path.read_bytes(), headers=BINARY)
    assert answer.status_code == 201, answer.text


@pytest.fixture(scope="module")
def trained(base_weights: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base, trained elsewhere until it knows nearly every image."""
    torch.manual_seed(1)
    module = zoo.get(ARCHITECTURE, [MODULE]).build({})
    data = open_dataset(str(images))
    inputs = torch.from_numpy(data.images).float() / 127.5 - 1
    labels = torch.from_numpy(data.labels)
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs), labels).backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("elsewhere") / "trained.safetensors"
    save_state(path, state_of(module))
    return path


@pytest.fixture
def workshop(plant: Any, trained: Path) -> Any:
    """A plant with the trained weights as version 2, and the package to them."""
    upload(plant.http, "digits", trained, parent=1)
    until(lambda: (1, 2, "xor") in packages(plant.http))
    return plant


def blobs_of(plant: Any) -> set[str]:
    folder = Path(plant.server.settings.blobs_dir)
    return {path.name for path in folder.rglob("*") if path.is_file()}


def order(method: str, options: dict[str, Any], **changes: Any) -> dict[str, Any]:
    chosen = {"id": method, "options": options}
    return {"model": "digits", "base": 1, "target": 2, "method": chosen, **changes}


def refused(plant: Any, status: int, body: dict[str, Any]) -> dict[str, Any]:
    answer = plant.http.post("/api/v1/packages", json=body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_lossy_package_is_published_only_where_it_is_accurate(workshop: Any) -> None:
    before, listed = blobs_of(workshop), packages(workshop.http)
    coarse = order("lra", {"rank": 1, "bits": 2}, dataset="bright", max_accuracy_drop=1)
    problem = refused(workshop, 422, coarse)
    assert problem["code"] == "update.below_accuracy"
    assert "% of bright with the decoded weights" in problem["detail"]
    assert "points less, allowed are 1" in problem["detail"]
    low = order("lra", {"rank": 1, "bits": 2}, dataset="bright", min_accuracy=90)
    assert "asked for are 90%" in refused(workshop, 422, low)["detail"]
    assert (blobs_of(workshop), packages(workshop.http)) == (before, listed)
    assert len(workshop.ask("GET", "/api/v1/models/digits/versions")["items"]) == 2

    fine = order("direct", {"bits": 10}, dataset="bright", max_accuracy_drop=1, min_accuracy=90)
    package = workshop.ask("POST", "/api/v1/packages", json=fine)
    metrics = package["metrics"]
    assert (package["target"], metrics["dataset"], metrics["images"]) == (3, "bright", 160)
    assert metrics["accuracy_target"] - metrics["accuracy_after"] <= 0.01
    version = workshop.ask("GET", "/api/v1/models/digits/versions/3")
    assert (version["approximates"], version["parent"]) == (2, 1)
    assert version["metrics"]["accuracy"] == metrics["accuracy_after"] > 0.9


def test_figures_are_kept_where_nothing_is_asked_of_them(workshop: Any) -> None:
    coarse = order("lra", {"rank": 1, "bits": 2}, dataset="bright")
    metrics = workshop.ask("POST", "/api/v1/packages", json=coarse)["metrics"]
    assert metrics["accuracy_after"] < metrics["accuracy_target"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (order("ka", {}, max_accuracy_drop=1), 422, "request.invalid"),
        (order("direct", {}, dataset="none"), 404, "dataset.not_found"),
        (order("xor", {}, dataset="bright"), 422, "method.not_applicable"),
        (order("ka", {}, dataset="bright", min_accuracy=101), 422, "request.invalid"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    workshop: Any, body: dict[str, Any], status: int, code: str
) -> None:
    assert refused(workshop, status, body)["code"] == code


def test_a_model_without_an_architecture_cannot_be_measured(serve: Any, weights_file: Any) -> None:
    fleet = Fleet(serve(dataset_roots="/x"), [weights_file(0), weights_file(1)])
    with writing(fleet.server.app.state.engine) as session:
        session.add(Dataset(name="d", uri="/x", fingerprint="0" * 64, rows=1, classes=["a"]))
    body = {"model": "m", "base": 1, "target": 2, "method": {"id": "direct"}, "dataset": "d"}
    problem = fleet.call("POST", "/api/v1/packages", status=422, json=body)
    assert problem["code"] == "update.not_measurable"


def test_data_that_are_not_allowed_any_more_are_not_opened(fleet: Any) -> None:
    with writing(fleet.server.app.state.engine) as session:
        session.add(Dataset(name="d", uri="/x", fingerprint="0" * 64, rows=1, classes=["a"]))
    body = {"model": "m", "base": 1, "target": 2, "method": {"id": "direct"}, "dataset": "d"}
    problem = fleet.call("POST", "/api/v1/packages", status=422, json=body)
    assert problem["code"] == "dataset.not_allowed"


def test_removed_weights_are_nothing_to_build_from(fleet: Any) -> None:
    with writing(fleet.server.app.state.engine) as session:
        session.execute(update(Version).where(Version.number == 1).values(removed_at=now()))
    body = {"model": "m", "base": 1, "target": 2, "method": {"id": "xor"}}
    problem = fleet.call("POST", "/api/v1/packages", status=410, json=body)
    assert problem["code"] == "version.removed"


def test_the_package_from_the_parent_is_made_after_a_crash_too(
    fleet: Any, serve: Any, weights_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def crash(*order: object) -> None:
        asked.append(order)
        raise SystemExit  # as far as the server comes

    fleet.server.stop()
    with monkeypatch.context() as patch:
        patch.setattr(app_module, "lossless_package", crash)
        dying = serve()
        upload(dying.client, "m", weights_file(2), parent=2)
        until(lambda: asked)
        dying.stop()
    living = serve()
    until(lambda: packages(living.client) == [(2, 3, "xor")])


def test_versions_without_a_parent_or_of_another_schema_get_none(
    fleet: Any, weights_file: Any
) -> None:
    other = weights_file(3, extra=np.zeros(3, np.float32))
    url = "/api/v1/models/m/versions?parent=1&new_schema=true"
    fleet.call("POST", url, content=other.read_bytes(), headers=BINARY)
    with reading(fleet.server.app.state.engine) as session:
        assert missing_packages(session) == []
