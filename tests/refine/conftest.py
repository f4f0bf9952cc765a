"""A small world to refine in: images of three classes, and a model that knows them a little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from server.refine.initial import train_initial
from server.refine.recipe import Recipe
from server.refine.spec import JobSpec
from server.refine.weights import save_state
from server.registry.opening import ImageDataset, open_dataset

ARGUMENTS = {"in_channels": 1, "classes": 3}


def make_images(count: int, classes: int = 3, seed: int = 0) -> ImageDataset:
    """Noise with a bright bar whose place tells the class; uint8 (N, 1, 16, 16)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    images = rng.integers(0, 120, (count, 1, 16, 16), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[0, 2 + 3 * label : 5 + 3 * label] += 70
    return ImageDataset(images, labels.astype(np.int64), tuple(map(str, range(classes))))


def save_images(path: Path, dataset: ImageDataset) -> str:
    """Write an npz; returns its URI."""
    np.savez(
        path, images=dataset.images[:, 0], labels=dataset.labels, classes=list(dataset.classes)
    )
    return str(path)


@dataclass(frozen=True)
class World:
    """URIs of training and test data, and the weights file of a base trained on a few images."""

    train: str
    test: str
    base: Path

    def spec(self, method: str = "ka", **changes: Any) -> JobSpec:
        """A short refinement; `changes` are fields of JobSpec."""
        options = {"ka": {"rank": 1}, "rm": {"proportion": 0.1}}
        fields: dict[str, Any] = {
            "architecture": "vgg_small",
            "arguments": ARGUMENTS,
            "base": self.base,
            "dataset": self.train,
            "evaluation_dataset": self.test,
            "method": method,
            "options": options.get(method, {}),
            "recipe": Recipe(epochs=2, batch_size=32, held_out=0.1, threads=1),
        }
        return JobSpec(**(fields | changes))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tests run beside each other; threads that wait for each other would only cost time."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def images() -> Callable[..., ImageDataset]:
    return make_images


@pytest.fixture(scope="session")
def save() -> Callable[[Path, ImageDataset], str]:
    return save_images


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    train = save_images(folder / "train.npz", make_images(200, seed=1))
    test = save_images(folder / "test.npz", make_images(100, seed=2))
    recipe = Recipe(epochs=6, batch_size=16, held_out=0, threads=1)
    state = train_initial("vgg_small", ARGUMENTS, open_dataset(f"{train}#rows=0:60"), recipe)
    save_state(folder / "base.safetensors", state)
    return World(train, test, folder / "base.safetensors")
