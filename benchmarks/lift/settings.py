"""What is deployed, with which part of the data, and how it is trained: one line a setting."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = Path(os.environ.get("WEFT_DATA", ROOT.parent / "shared" / "data"))

#: Of every training: one thread, in bfloat16, nothing kept apart (the protocol does that).
COMMON = {"held_out": 0.0, "threads": 1, "precision": "bfloat16"}
SHIFTED = {"crop": 2, "flip": True}


@dataclass(frozen=True)
class Setting:
    """A model deployed with the first `deployed` rows of a data set and updated with all `rows`.

    The last `held_out` training rows judge while rates are chosen. `tuning` and `epochs` are the
    lengths of a short and of a full refinement, `initial` is how the deployed model was trained.
    `tuned_in` names the setting whose rates serve this one, where it is not its own.
    """

    name: str
    architecture: str
    data: str
    deployed: int
    rows: int
    initial: dict[str, Any]
    tuning: int
    epochs: int
    recipe: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    held_out: int = 5000
    tuned_in: str | None = None

    @property
    def train(self) -> Path:
        """The training rows, as Parquet."""
        return DATA / f"{self.data}-train.parquet"

    @property
    def test(self) -> Path:
        """The rows that are read once a run."""
        return DATA / f"{self.data}-test.parquet"

    @property
    def all_rows(self) -> str:
        """What a full refinement is trained on."""
        return self.part(0, self.rows)

    def part(self, start: int, stop: int) -> str:
        """Some of the training rows, as a dataset's address."""
        return f"{self.train}#rows={start}:{stop}"

    @property
    def missing(self) -> str | None:
        """What to do where the data are not there."""
        if self.train.exists() and self.test.exists():
            return None
        return f"no {self.data} Parquet files in {DATA}; point WEFT_DATA at them"


def _cifar(
    name: str,
    architecture: str,
    first: int,
    tuning: int,
    epochs: int,
    share: float = 0.2,
    tuned_in: str | None = None,
    rows: int = 50_000,
) -> Setting:
    return Setting(
        name=name,
        architecture=architecture,
        data="cifar10",
        deployed=round(rows * share),
        rows=rows,
        initial={"epochs": first, "crop": 4, "flip": True},
        tuning=tuning,
        epochs=epochs,
        recipe=SHIFTED,
        held_out=rows // 10,
        tuned_in=tuned_in,
    )


#: The paper's (Chen et al. 2022, section 5): CIFAR-10 from 20%, MNIST from 2%. Epochs are what two
#: cores allow; on a GPU `--epochs` gives more.
SETTINGS = {
    setting.name: setting
    for setting in (
        _cifar("vgg_small", "vgg_small", first=40, tuning=4, epochs=10),
        _cifar("vgg_medium", "vgg_medium", first=40, tuning=3, epochs=8),
        _cifar("vgg_tiny", "vgg_tiny", first=60, tuning=4, epochs=10),
        *(
            _cifar(
                f"vgg_tiny_{percent}",
                "vgg_tiny",
                first=round(1200 / percent),
                tuning=4,
                epochs=10,
                share=percent / 100,
                tuned_in="vgg_tiny",
            )
            for percent in (10, 30, 50, 70)
        ),
        _cifar("mobilenet_v2", "mobilenet_v2", first=40, tuning=4, epochs=20),
        _cifar("resnet18", "resnet18", first=40, tuning=4, epochs=20),
        _cifar("resnet50", "resnet50", first=40, tuning=4, epochs=20),
        # What a CPU can do of those three: they are trained, not much more.
        *(
            _cifar(f"{name}_2500", name, first=10, tuning=1, epochs=2, rows=2_500)
            for name in ("mobilenet_v2", "resnet18", "resnet50")
        ),
        Setting(
            name="mnist",
            architecture="tiny_resnet",
            data="mnist",
            deployed=1200,
            rows=60_000,
            initial={"epochs": 20},
            tuning=1,
            epochs=3,
            arguments={"in_channels": 1},
        ),
        # Layers that are no convolutions (benchmarks.layers): from the same 2%, to a third.
        *(
            Setting(
                name=name,
                architecture=name,
                data="mnist",
                deployed=1200,
                rows=20_000,
                initial={"epochs": first},
                tuning=1,
                epochs=epochs,
            )
            for name, first, epochs in (("row_lstm", 20, 3), ("small_vit", 40, 2))
        ),
    )
}
