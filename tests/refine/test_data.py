"""On the real images, where they are: a few seconds each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from server.refine.initial import train_initial
from server.refine.job import Job
from server.refine.recipe import Recipe
from server.refine.spec import JobSpec
from server.refine.weights import save_state
from server.registry.opening import open_dataset

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def data(request: pytest.FixtureRequest) -> Path:
    """The folder of the Parquet files: WEFT_DATA, or `shared/data` beside the checkout."""
    checkout = request.config.rootpath
    folder = Path(os.environ.get("WEFT_DATA", checkout.parent / "shared" / "data"))
    if not (folder / "mnist-train.parquet").exists():
        pytest.skip(f"no Parquet files in {folder}; set WEFT_DATA to their folder")
    return folder


@pytest.mark.parametrize(
    ("name", "shape", "first"),
    [("cifar10", (3, 32, 32), "airplane"), ("mnist", (1, 28, 28), "0")],
)
def test_the_files_open(data: Path, name: str, shape: tuple[int, ...], first: str) -> None:
    dataset = open_dataset(f"{data / name}-test.parquet")
    assert dataset.images.shape == (10_000, *shape)
    assert dataset.classes[0] == first
    assert len(dataset.classes) == 10


def test_more_data_make_a_better_model(data: Path, tmp_path: Path) -> None:
    """The paper's setting in little: MNIST, a share first, then more of it."""

    def ignore(_line: dict[str, Any]) -> None:
        return

    train, test = data / "mnist-train.parquet", data / "mnist-test.parquet"
    arguments = {"in_channels": 1}
    first = Recipe(epochs=6, batch_size=32, held_out=0, threads=1)
    state = train_initial("vgg_tiny", arguments, open_dataset(f"{train}#rows=0:300"), first)
    save_state(tmp_path / "base", state)
    job = Job(
        JobSpec(
            architecture="vgg_tiny",
            arguments=arguments,
            base=tmp_path / "base",
            dataset=f"{train}#rows=0:3000",
            evaluation_dataset=f"{test}#rows=0:2000",
            method="ka",
            options={"rank": 3},
            recipe=Recipe(epochs=4, crop=1, threads=1),
        )
    )
    refined = job.train(ignore)
    before, after = job.measure.base(), job.evaluate_state(refined.state)
    assert before.accuracy > 0.6
    assert after.accuracy > before.accuracy + 0.02
    assert after.negative_flips is not None
    assert after.negative_flips < 0.1
