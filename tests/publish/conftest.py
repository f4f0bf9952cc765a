"""A tiny model, tiny data that it can learn in seconds, and the folder of a refinement."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from server import zoo
from server.publish import spec
from server.publish.spec import Task, write_durably
from server.refine.spec import JobSpec
from server.refine.weights import save_state, state_of

#: An operator's own module, as WEFT_MODEL_MODULES allows it.
MODULE = "operators_nets"
ARCHITECTURE = f"{MODULE}:net"
SOURCE = """
from torch import nn

def net(classes=3):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(12 * 16, classes),
    )
"""
URL = "/api/v1/refinements"
BINARY = {"Content-Type": "application/octet-stream"}
RECIPE = {"epochs": 2, "batch_size": 32, "threads": 1, "held_out": 0.2}


def save_images(path: Path, count: int = 160, seed: int = 0) -> Path:
    """Images (16 x 16) of three classes: which third of the height is bright."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, count)
    images = draw.integers(0, 120, (count, 16, 16), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[label * 5 : label * 5 + 5] += 120
    np.savez(path, images=images, labels=labels)
    return path


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_images(tmp_path_factory.mktemp("data") / "bright.npz")


@pytest.fixture(scope="session", autouse=True)
def _importable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The operator's module can be imported, here and in child processes."""
    folder = tmp_path_factory.mktemp("operator")
    (folder / f"{MODULE}.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield
    sys.modules.pop(MODULE, None)


@pytest.fixture(scope="session")
def base_weights(tmp_path_factory: pytest.TempPathFactory, _importable: None) -> Path:
    """A fresh network with BatchNorm: it knows nothing yet."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "base.safetensors"
    save_state(path, state_of(zoo.get(ARCHITECTURE, [MODULE]).build({})))
    return path


@pytest.fixture
def refinement_folder(tmp_path: Path, images: Path, base_weights: Path) -> Callable[..., Path]:
    """The folder that the server prepares for the child."""

    def prepare(method: str, options: dict[str, Any] | None = None, **recipe: Any) -> Path:
        folder = tmp_path / f"job-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        job = JobSpec(
            architecture=ARCHITECTURE,
            model_modules=(MODULE,),
            base=base_weights,
            dataset=str(images),
            method=method,
            options=options or {},
            recipe={**RECIPE, **recipe},
        )
        task = Task(model="digits", job=job)
        write_durably(folder / spec.SPEC, task.model_dump_json())
        return folder

    return prepare


class Plant:
    """A server with a model `digits`, one version and one dataset `bright`."""

    def __init__(self, server: Any, base: Path, images: Path, **arguments: Any) -> None:
        self.server, self.http = server, server.client
        model = {"name": "digits", "architecture": ARCHITECTURE, "arguments": arguments}
        self.ask("POST", "/api/v1/models", json=model)
        upload = {"content": base.read_bytes(), "headers": BINARY}
        self.ask("POST", "/api/v1/models/digits/versions", **upload)
        self.ask("POST", "/api/v1/datasets", json={"name": "bright", "uri": str(images)})

    def ask(self, verb: str, url: str, **request: Any) -> Any:
        answer = self.http.request(verb, url, **request)
        assert answer.is_success, answer.text
        return answer.json()

    def order(self, method: str = "ka", /, **changes: Any) -> dict[str, Any]:
        recipe = {"epochs": 2, "batch_size": 32, "threads": 1}
        options = {"rank": 2} if method == "ka" else {}
        body = {"model": "digits", "dataset": "bright", "recipe": recipe}
        return {**body, "method": {"id": method, "options": options}, **changes}

    def refine(self, method: str = "ka", /, **changes: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask("POST", URL, json=self.order(method, **changes))
        return answer

    def follow(self, refinement: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with self.http.stream("GET", f"{URL}/{refinement['id']}/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))

    def download(self, url: str, path: Path) -> Path:
        answer: httpx.Response = self.http.get(url)
        path.write_bytes(answer.raise_for_status().content)
        return path


@pytest.fixture
def make_plant(serve: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plant]:
    """Builds a plant of weights, images and the architecture's arguments."""

    def make(base: Path, images: Path, **arguments: Any) -> Plant:
        monkeypatch.setenv("WEFT_MODEL_MODULES", MODULE)
        return Plant(serve(dataset_roots=(str(images.parent),)), base, images, **arguments)

    return make


@pytest.fixture
def plant(make_plant: Callable[..., Plant], base_weights: Path, images: Path) -> Plant:
    return make_plant(base_weights, images)
