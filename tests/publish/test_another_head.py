"""Another head: a model of five classes becomes one of ten, and goes on as such."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from server import zoo
from server.cli import run
from server.cli.commands import app
from server.refine.weights import save_state, state_of
from shared.decode import decode
from shared.package import PackageReader
from shared.weights import WeightsReader

ARCHITECTURE, MODULE = "operators_nets:net", "operators_nets"
VERSIONS = "/api/v1/models/digits/versions"
HEAD = "9.weight"


def save_bars(path: Path, classes: int) -> Path:
    """Images (16 x 16) whose class is the place of a bright bar."""
    draw = np.random.default_rng(classes)
    labels = draw.integers(0, classes, 200)
    images = draw.integers(0, 80, (200, 16, 16), np.uint8)
    for image, label in zip(images, labels, strict=True):
        side = slice(8 * (label // 5), 8 * (label // 5) + 8)
        image[3 * (label % 5) : 3 * (label % 5) + 3, side] += 150
    np.savez(path, images=images, labels=labels)
    return path


@pytest.fixture
def fresh_weights(tmp_path: Path) -> Callable[..., Path]:
    def save(classes: int, seed: int = 0) -> Path:
        torch.manual_seed(seed)
        path = tmp_path / f"{classes}.safetensors"
        save_state(path, state_of(zoo.get(ARCHITECTURE, [MODULE]).build({"classes": classes})))
        return path

    return save


@pytest.fixture
def factory(make_plant: Any, fresh_weights: Any, tmp_path: Path) -> Any:
    """A plant whose model has five classes; `all` is a dataset of ten."""
    plant = make_plant(fresh_weights(5), save_bars(tmp_path / "five.npz", 5), classes=5)
    all_bars = str(save_bars(tmp_path / "ten.npz", 10))
    plant.ask("POST", "/api/v1/datasets", json={"name": "all", "uri": all_bars})
    return plant


def refined(plant: Any, **changes: Any) -> dict[str, Any]:
    """The end of a refinement."""
    (*_, done) = plant.follow(plant.refine(dataset="all", **changes))
    assert done["state"] == "succeeded", done["error"]
    return dict(done)


def test_refined_to_another_head_over_http(factory: Any, tmp_path: Path) -> None:
    done = refined(factory, target_arguments={"classes": 10})
    assert done["target_arguments"] == {"classes": 10}
    first, second = (factory.ask("GET", f"{VERSIONS}/{number}") for number in (1, 2))
    assert (first["arguments"], second["arguments"]) == ({"classes": 5}, {"classes": 10})
    model = factory.ask("GET", "/api/v1/models/digits")
    assert (model["arguments"], model["schema"][HEAD]["shape"][0]) == ({"classes": 10}, 10)
    assert {"8", "9"} & second["metrics"]["per_class_after"].keys()

    base = factory.download(f"{VERSIONS}/1/weights", tmp_path / "base")
    weft = factory.download(f"/api/v1/packages/{done['package_id']}/content", tmp_path / "weft")
    with (
        WeightsReader(base) as old,
        PackageReader(weft) as update,
        (tmp_path / "new").open("w+b") as file,
    ):
        assert decode(old, update, file).hex() == second["weights_digest"]
    with WeightsReader(tmp_path / "new") as new:
        assert new.schema[HEAD].shape[0] == 10

    assert refined(factory)["base"] == 2
    third = factory.ask("GET", f"{VERSIONS}/3")
    assert (third["arguments"], third["parent"]) == ({"classes": 10}, 2)


def test_refined_to_another_head_from_the_command_line(
    factory: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "refine digits --dataset all --method xor --epochs 1 --recipe threads=1 --json"
    order = [*words.split(), "--target-argument", "classes=10", "--server", factory.server.url]
    assert run(app, order) == 0
    assert json.loads(capsys.readouterr().out)["target"] == 2
    assert factory.ask("GET", f"{VERSIONS}/2")["arguments"] == {"classes": 10}


def test_built_package_leads_to_a_version_with_the_targets_head(
    factory: Any, upload: Any, fresh_weights: Any
) -> None:
    upload(fresh_weights(10), '?arguments={"classes": 10}').raise_for_status()
    method = {"id": "direct", "options": {}}
    order = {"model": "digits", "base": 1, "target": 2, "method": method}
    assert factory.ask("POST", "/api/v1/packages", json=order)["target"] == 3
    encoded = factory.ask("GET", f"{VERSIONS}/3")
    assert (encoded["arguments"], encoded["approximates"]) == ({"classes": 10}, 2)


def test_head_that_the_architecture_cannot_have_is_refused_at_once(factory: Any) -> None:
    for wrong in ({"classes": -1}, {"depth": 2}):
        order = factory.order(target_arguments=wrong)
        answer = factory.http.post("/api/v1/refinements", json=order)
        assert (answer.status_code, answer.json()["code"]) == (422, "model.unknown_architecture")


@pytest.fixture
def upload(factory: Any) -> Callable[[Path, str], Any]:
    def send(path: Path, query: str = "") -> Any:
        headers = {"Content-Type": "application/octet-stream"}
        return factory.http.post(VERSIONS + query, content=path.read_bytes(), headers=headers)

    return send


def test_uploads_say_their_arguments_where_the_model_has_others(
    upload: Any, fresh_weights: Any
) -> None:
    ten = fresh_weights(10)
    for query in ("", "?new_schema=true", '?arguments={"classes": 7}'):
        answer = upload(ten, query)
        assert (answer.status_code, answer.json()["code"]) == (422, "weights.schema_mismatch")
    accepted = upload(ten, '?arguments={"classes": 10}')
    assert (accepted.status_code, accepted.json()["arguments"]) == (201, {"classes": 10})
    ten = fresh_weights(10, seed=1)
    assert upload(ten, "").json()["arguments"] == {"classes": 10}  # the newest version's now


@pytest.mark.parametrize("query", ["?arguments=[1]", "?arguments={"])
def test_arguments_that_are_no_object_are_refused(
    upload: Any, fresh_weights: Any, query: str
) -> None:
    answer = upload(fresh_weights(5), query)
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")
