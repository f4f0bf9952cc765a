"""What the demo trains on: digits by default, or the paper's settings on Parquet files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import BadConfig

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "var" / "demo"
PARQUET = Path(os.environ.get("WEFT_DATA", ROOT.parent / "shared" / "data"))
PIXELS = 32


@dataclass(frozen=True)
class Setting:
    """One story: a model trained on `initial`, deployed, then refined with `everything`."""

    title: str
    model: str
    architecture: str
    arguments: dict[str, Any]
    initial: str
    everything: str
    test: str
    first_recipe: dict[str, Any]
    recipe: dict[str, Any]
    method: str
    options: dict[str, Any]


def choose(name: str) -> Setting:
    """The setting of that name: `digits`, `mnist`, `cifar10`; raises BadConfig."""
    settings = {"digits": _digits, "mnist": _mnist, "cifar10": _cifar10}
    if name not in settings:
        raise BadConfig("invalid", f"DATA={name}: choose one of {', '.join(settings)}")
    return settings[name]()


def _digits() -> Setting:
    initial, everything, test = _write_digits(FOLDER / "data")
    return Setting(
        title="handwritten digits: a network that saw 5% of them learns from all",
        model="digits",
        architecture="vgg_small",
        arguments={"in_channels": 1},
        initial=str(initial),
        everything=str(everything),
        test=str(test),
        first_recipe={"epochs": 12, "batch_size": 32, "threads": 1},
        recipe={"epochs": 6, "batch_size": 64, "threads": 1},
        method="ka",
        options={"rank": 3},
    )


def _write_digits(folder: Path) -> tuple[Path, Path, Path]:
    """8 x 8 grey images scaled up by pixel repetition; a quarter is kept for testing."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    small = (digits.images[order] * (255 / 16)).astype(np.uint8)
    images = np.kron(small, np.ones((PIXELS // 8, PIXELS // 8), np.uint8))[:, None]
    labels = digits.target[order].astype(np.int64)
    test = len(labels) // 4
    train = slice(test, None)
    few = slice(test, test + (len(labels) - test) // 20)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, part in (("initial", few), ("everything", train), ("test", slice(test))):
        paths.append(folder / f"{name}.npz")
        np.savez(paths[-1], images=images[part], labels=labels[part])
    return paths[0], paths[1], paths[2]


def _parquet(name: str, share: int, rows: int) -> tuple[str, str, str]:
    train, test = PARQUET / f"{name}-train.parquet", PARQUET / f"{name}-test.parquet"
    for path in (train, test):
        if not path.exists():
            raise BadConfig("missing", f"{path} is not there; point WEFT_DATA at the Parquet files")
    return f"{train}#rows=0:{rows * share // 100}", str(train), str(test)


def _mnist() -> Setting:
    initial, everything, test = _parquet("mnist", 2, 60_000)
    return Setting(
        title="MNIST: a network that saw 2% learns from all (the paper's setting)",
        model="mnist",
        architecture="tiny_resnet",
        arguments={"in_channels": 1},
        initial=initial,
        everything=everything,
        test=test,
        first_recipe={"epochs": 20, "batch_size": 64, "threads": 1},
        recipe={"epochs": 2},
        method="ka",
        options={"rank": 1},
    )


def _cifar10() -> Setting:
    initial, everything, test = _parquet("cifar10", 20, 50_000)
    return Setting(
        title="CIFAR-10: a network that saw 20% learns from all (the paper's setting)",
        model="cifar10",
        architecture="vgg_small",
        arguments={},
        initial=initial,
        everything=everything,
        test=test,
        first_recipe={"epochs": 20, "crop": 2, "flip": True},
        recipe={"epochs": 8, "crop": 2, "flip": True},
        method="ka",
        options={"rank": 3},
    )
