"""VGG-tiny on MNIST, deployed with 300 images and updated with 3,000: a training of 750 steps."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = Path(os.environ.get("WEFT_DATA", ROOT.parent / "shared" / "data"))
TRAIN, TEST = DATA / "mnist-train.parquet", DATA / "mnist-test.parquet"

ARCHITECTURE, ARGUMENTS = "vgg_tiny", {"in_channels": 1}
DEPLOYED, NEW = f"{TRAIN}#rows=0:300", f"{TRAIN}#rows=0:3000"
JUDGES = f"{TEST}#rows=0:5000"
FIRST = {"epochs": 20, "batch_size": 32, "held_out": 0.0, "threads": 1}
RECIPE = {"epochs": 16, "batch_size": 64, "held_out": 0.0, "threads": 1}

AIMS = (100, 300, 1000, 3000)
SPARSE_RATES = (2e-2, 5e-2)
SIZES = (1500, 700)
#: Accuracies that are asked for, as shares of the way from the base to dense retraining.
REACH = (0.5,)


@dataclass(frozen=True)
class Way:
    """A way to refine; what differs from RECIPE."""

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)


def grid() -> list[Way]:
    """What an operator would try: every method worth it, at its sizes, `sparse` at two rates."""
    sparse = [
        _at(rate, f"sparse-{aim}", "sparse", {"bytes": aim})
        for aim in AIMS
        for rate in SPARSE_RATES
    ]
    return [
        Way("control", "sparse", {}, {"matrices": False}),
        *sparse,
        *(_at(1e-2, f"ka-{rank}", "ka", {"rank": rank, "bits": 4}) for rank in (1, 3)),
        _at(3e-2, "rm-5", "rm", {"proportion": 0.05, "bits": 4}),
        *(_at(3e-2, f"direct-{bits}", "direct", {"bits": bits}) for bits in (4, 8)),
    ]


def _at(rate: float, name: str, method: str, options: dict[str, Any]) -> Way:
    return Way(f"{name}-{rate:g}", method, options, {"learning_rate": rate})


def sizes() -> list[Way]:
    """What `auto` is asked for, in bytes."""
    return [Way(f"auto-{size}-bytes", "auto", {"max_bytes": size}) for size in SIZES]


def accuracies(before: float, dense: float) -> list[Way]:
    """What `auto` is asked for, given the shares of right answers of base and dense retraining."""
    percents = [round(100 * (before + reach * (dense - before)), 2) for reach in REACH]
    return [
        Way(f"auto-{100 * reach:g}-of-lift", "auto", {"min_accuracy": percent})
        for reach, percent in zip(REACH, percents, strict=True)
    ]
