"""A tiny model, tiny data that it can learn in seconds, and the folder of a refinement."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
