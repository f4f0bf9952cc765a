"""Golden samples are asked for with a package or a refinement; devices that know them get it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from server import zoo
from server.db import reading
from server.publish import spec
from server.publish.pipeline import refine_package_evaluate
from server.refine.batches import scaled
from server.refine.weights import load_into, load_state
from server.tables import Package
from shared.golden import Golden, samples_digest
from shared.package import PackageReader
from tests.device_keys import DeviceKey
from tests.publish.conftest import ARCHITECTURE, MODULE

FULL = {"model": "digits", "target": 1, "method": {"id": "full"}}


def answers(weights: Path, inputs: Any) -> list[int]:
    import torch

    module = zoo.get(ARCHITECTURE, [MODULE]).build({}).eval()
    load_into(module, load_state(weights))
    with torch.inference_mode():
        return module(torch.from_numpy(inputs)).argmax(1).tolist()


def golden_in(plant: Any, package: dict[str, Any], tmp_path: Path) -> Golden | None:
    path = plant.download(f"/api/v1/packages/{package['id']}/content", tmp_path / "p.weft")
    with PackageReader(path) as reader:
        return reader.header.golden


def needs(plant: Any, package: dict[str, Any]) -> dict[str, Any]:
    with reading(plant.server.app.state.engine) as session:
        return session.scalars(select(Package).where(Package.id == package["id"])).one().needs


def test_a_package_with_samples_of_a_seed(plant: Any, base_weights: Path, tmp_path: Path) -> None:
    asked = FULL | {"golden": {"count": 12, "shape": [1, 16, 16]}}
    package = plant.ask("POST", "/api/v1/packages", json=asked)
    golden = golden_in(plant, package, tmp_path)
    assert golden is not None
    assert golden.expected == answers(base_weights, golden.inputs())
    assert package["metrics"]["golden"] == golden.fields()
    assert needs(plant, package)["format"] == 2
    plain = plant.ask("POST", "/api/v1/packages", json=FULL)
    assert golden_in(plant, plain, tmp_path) is None
    assert needs(plant, plain)["format"] == 1


def test_a_package_with_samples_of_a_data_set(
    plant: Any, base_weights: Path, images: Path, tmp_path: Path
) -> None:
    import torch

    from server.registry.opening import open_dataset

    asked = FULL | {"golden": {"count": 9, "dataset": "bright"}}
    golden = golden_in(plant, plant.ask("POST", "/api/v1/packages", json=asked), tmp_path)
    rows = torch.from_numpy(open_dataset(str(images)).images[:9]).permute(0, 2, 3, 1)
    inputs = scaled(rows).numpy()
    assert golden is not None
    assert golden.samples == samples_digest(inputs)
    assert golden.expected == answers(base_weights, inputs)


@pytest.mark.parametrize(("formats", "golden"), [([1], False), ([1, 2], True)])
def test_only_devices_that_read_format_2_are_offered_samples(
    plant: Any, formats: list[int], golden: bool
) -> None:
    asked = FULL | {"golden": {"count": 12, "shape": [1, 16, 16]}}
    package = plant.ask("POST", "/api/v1/packages", json=asked)
    body = {
        "name": "cam",
        "token": "enrol-me-please",
        "models": {"digits": {"slots": [], "current": None}},
        "capabilities": {"formats": formats, "methods": {"full": 1}, "coders": ["zstd/1"]},
    }
    device = plant.ask("POST", "/device/v1/enrol", **DeviceKey().enrolment(body))
    plant.ask("POST", "/api/v1/rollouts", json={"model": "digits", "version": 1})
    headers = {"Authorization": f"Bearer {device['token']}"}
    (offer,) = plant.ask("GET", "/device/v1/desired", headers=headers)["models"]
    sent = offer.get("package", {})
    assert (sent.get("sha256") == package["sha256"]) is golden


@pytest.mark.parametrize(
    ("golden", "status", "code"),
    [
        ({"count": 8, "shape": [3, 16, 16]}, 422, "update.no_golden"),
        ({"count": 8, "dataset": "dark"}, 404, "dataset.not_found"),
        ({"count": 8}, 422, "request.invalid"),
        ({"count": 8, "shape": [1, 16, 16], "dataset": "bright"}, 422, "request.invalid"),
        ({"count": 65, "shape": [1, 16, 16]}, 422, "request.invalid"),
        ({"count": 8, "shape": [60000, 60000]}, 422, "request.invalid"),
        ({"count": 8, "shape": [0]}, 422, "request.invalid"),
    ],
)
def test_what_cannot_be_had_is_refused(plant: Any, golden: Any, status: int, code: str) -> None:
    answer = plant.http.post("/api/v1/packages", json=FULL | {"golden": golden})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert plant.ask("GET", "/api/v1/packages")["items"] == []


@pytest.mark.parametrize("method", ["ka", "xor"])
def test_a_refinement_with_samples(refinement_folder: Any, method: str) -> None:
    folder = refinement_folder(method, {"rank": 2} if method == "ka" else {}, epochs=1, golden=10)
    result = refine_package_evaluate(folder, lambda _: None)
    with PackageReader(folder / spec.PACKAGE) as package:
        golden = package.header.golden
    assert golden is not None
    assert result.golden == golden.fields()
    assert golden.shape == (1, 16, 16)
    assert golden.expected == answers(folder / spec.DECODED, golden.inputs())
