"""What the paper measured (Chen et al. 2022, section 5), as a table: one line an experiment.

Both controls stand beside every comparison: biases and BatchNorm alone, and dense retraining.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from benchmarks.lift.candidates import candidates
from benchmarks.paper.sizes import at_least, count, nearest, parameters

CONTROLS = ("control", "dense")
METHODS = ("ka", "ml", "lra", "rm", "lru", "fp")

#: In the paper's Table 1, LRU counts 5 to 6% more than KA, so coarse are its sizes.
_LRU_ABOVE = 1.05
#: A method without a size so near to a share has no point there.
_FAR = 1.5


@dataclass(frozen=True)
class Cell:
    """A run: `epochs` where they are not the setting's, `rate` where it is not the tuned one."""

    setting: str
    family: str
    model: int
    seed: int
    epochs: int | None = None
    rate: float | None = None


def untuned(cell: Cell) -> Cell:
    """The cell at its method's own rate, where there is one: the middle of the grid."""
    grid = candidates(cell.family)
    if cell.rate is not None or len(grid) == 1:
        return cell
    return replace(cell, rate=grid[len(grid) // 2].recipe["learning_rate"])


@dataclass(frozen=True)
class Experiment:
    """A table or figure: settings, the families of each, and how often all of it is repeated."""

    name: str
    title: str
    settings: tuple[str, ...]
    families: Callable[[str], tuple[str, ...]]
    models: int = 3
    seeds: int = 2
    epochs: tuple[int | None, ...] = (None,)
    rates: tuple[float | None, ...] = (None,)

    def cells(self) -> Iterator[Cell]:
        """All runs; those come first that give every family a figure."""
        for seed in range(self.seeds):
            for model in range(self.models):
                for setting in self.settings:
                    for family in self.families(setting):
                        for epochs in self.epochs:
                            for rate in self.rates:
                                yield Cell(setting, family, model, seed, epochs, rate)

    def limited(
        self, models: int | None, seeds: int | None, epochs: int | None, settings: list[str] | None
    ) -> Experiment:
        """The same with fewer runs, or with trainings of another length."""
        return replace(
            self,
            models=self.models if models is None else models,
            seeds=self.seeds if seeds is None else seeds,
            epochs=self.epochs if epochs is None else (epochs,),
            settings=tuple(s for s in self.settings if settings is None or s in settings),
        )


def matched(setting: str, rank: int) -> tuple[str, ...]:
    """KA of that rank; RM and LRU of a count as near to KA's as they can, and no less."""
    ka = f"ka-{rank}"
    own = count(setting, ka)
    lru = nearest(setting, "lru", _LRU_ABOVE * own)
    if count(setting, lru) < own:
        lru = at_least(setting, "lru", own)
    return ka, at_least(setting, "rm", own), lru, *CONTROLS


def _table1(setting: str) -> tuple[str, ...]:
    return matched(setting, 3)


def _fig6(setting: str) -> tuple[str, ...]:
    return matched(setting, 1)


def _curves(*shares: float) -> Callable[[str], tuple[str, ...]]:
    """Every method at those shares of the parameters."""

    def families(setting: str) -> tuple[str, ...]:
        found = dict.fromkeys(CONTROLS)
        for share in shares:
            wanted = share * parameters(setting)
            for method in METHODS:
                family = nearest(setting, method, wanted)
                if 1 / _FAR < count(setting, family) / wanted < _FAR:
                    found[family] = None
        return tuple(found)

    return families


#: That of KA on VGG-small by its tuning, and a third of it.
_KA_RATES = (0.09, 0.03)

EXPERIMENTS = {
    one.name: one
    for one in (
        Experiment(
            "table1",
            "Table 1: five models on CIFAR-10, updates of one size",
            ("vgg_small", "vgg_medium", "mobilenet_v2", "resnet18", "resnet50"),
            _table1,
        ),
        Experiment(
            "reduced",
            "Its three larger models, reduced: 2,500 images of CIFAR-10, two epochs on a CPU",
            ("mobilenet_v2_2500", "resnet18_2500", "resnet50_2500"),
            _table1,
            models=1,
            seeds=1,
        ),
        Experiment(
            "fig4a",
            "Fig. 4a: ResNet18 on CIFAR-10, accuracy against update size",
            ("resnet18",),
            _curves(0.005, 0.01, 0.02, 0.05, 0.1, 0.2),
        ),
        Experiment(
            "fig4a-reduced",
            "Fig. 4a, reduced: ResNet18, 2,500 images of CIFAR-10, two epochs on a CPU",
            ("resnet18_2500",),
            _curves(0.01, 0.05),
            models=1,
            seeds=1,
        ),
        Experiment(
            "fig4b",
            "Fig. 4b: tiny-ResNet on MNIST, accuracy against update size",
            ("mnist",),
            _curves(0.02, 0.041, 0.1, 0.2, 0.4),
        ),
        Experiment(
            "fig5",
            "Fig. 5: VGG-tiny on CIFAR-10, accuracy against update size",
            ("vgg_tiny",),
            _curves(0.02, 0.041, 0.1, 0.2, 0.4),
        ),
        Experiment(
            "fig6",
            "Fig. 6: VGG-tiny on CIFAR-10, lift against the initial share of the data",
            ("vgg_tiny_10", "vgg_tiny", "vgg_tiny_30", "vgg_tiny_50", "vgg_tiny_70"),
            _fig6,
        ),
        Experiment(
            "saturation",
            "Where KA saturates: VGG-small, n = 3, longer trainings at two rates",
            ("vgg_small",),
            lambda _setting: ("ka-3",),
            models=1,
            seeds=1,
            epochs=(5, 10, 20, 40),
            rates=_KA_RATES,
        ),
    )
}
