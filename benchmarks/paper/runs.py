"""Runs of the experiments: which there are, which are left, how long those will take."""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from benchmarks.lift.candidates import at_rate, candidates, tuned_as
from benchmarks.lift.choice import chosen
from benchmarks.lift.protocol import RUNS, Protocol, device
from benchmarks.lift.settings import SETTINGS
from benchmarks.paper import filter_pruning
from benchmarks.paper.experiments import EXPERIMENTS, Cell
from server import zoo

Row = dict[str, Any]

COMMAND = "make bench-paper"
TUNING = "tune"


def protocol(setting: str) -> Protocol:
    """The protocol of a setting, which knows filter pruning too."""
    return Protocol(SETTINGS[setting], COMMAND, {"fp": filter_pruning.refine})


def tuned_in(setting: str) -> str:
    """The setting in which the rates of one are tuned."""
    return SETTINGS[setting].tuned_in or setting


def make(cell: Cell) -> Row:
    """The run of a cell, tuned before where nothing of its method has been; made if missing."""
    rate = cell.rate
    if rate is None:
        rate = _tuned_rate(tuned_in(cell.setting), tuned_as(cell.family))
    candidate = at_rate(cell.family, rate)
    return protocol(cell.setting).measure(candidate, cell.model, cell.seed, cell.epochs)


@functools.cache
def _tuned_rate(setting: str, family: str) -> float | None:
    rate: float | None = chosen([family], protocol(setting).tune)[family].recipe.get(
        "learning_rate"
    )
    return rate


def is_of(row: Row, cell: Cell) -> bool:
    """Whether a row is the run of a cell: also where the cell names the setting's own epochs."""
    full = SETTINGS[cell.setting].epochs
    stages = {f"epochs{cell.epochs}", "test" if cell.epochs in (None, full) else ""}
    if cell.rate is not None and row["recipe"]["learning_rate"] != cell.rate:
        return False
    own = (cell.setting, cell.family, cell.model, cell.seed)
    same = own == tuple(row[key] for key in ("setting", "family", "model", "seed"))
    return same and row["stage"] in stages


def load() -> list[Row]:
    """All rows of the experiments' settings, tuning included."""
    settings = sorted({setting for one in EXPERIMENTS.values() for setting in one.settings})
    paths = (path for setting in settings for path in sorted((RUNS / setting).glob("*.json")))
    return [json.loads(path.read_text()) for path in paths]


def spent(row: Row) -> float:
    """Seconds of a run: of the CPU's time where that trained, so that other work counts not."""
    on_cpu = row.get("device", "cpu") == "cpu"
    return float(row["cpu_seconds"] if on_cpu and "cpu_seconds" in row else row["seconds"])


@dataclass(frozen=True)
class Training:
    """A piece of work: a run, a tuning run (`stage` tune) or an initial model (method initial)."""

    setting: str
    method: str
    images: int


@dataclass(frozen=True)
class Pace:
    """Seconds by what rows took: of the same method and setting, else of the setting, else of all.

    Rows of other devices do not count. Across settings, an image costs by its multiply-adds.
    """

    rows: list[Row] = field(repr=False)

    @functools.cached_property
    def _known(self) -> dict[tuple[str, str], list[float]]:
        found: dict[tuple[str, str], list[float]] = {}
        for row in self.rows:
            if row.get("device", "cpu") != device():
                continue
            name = row["setting"]
            per_image = spent(row) / (row["recipe"]["epochs"] * SETTINGS[name].rows)
            found.setdefault((name, row["method"]), []).append(per_image)
            found.setdefault((name, ""), []).append(per_image)
            found.setdefault(("", ""), []).append(per_image / multiply_adds(name))
        return found

    def seconds(self, training: Training) -> float | None:
        """About what a training takes; None where nothing has run yet."""
        name = training.setting
        for key in ((name, training.method), (name, "")):
            if key in self._known:
                return statistics.mean(self._known[key]) * training.images
        if ("", "") not in self._known:
            return None
        return statistics.mean(self._known["", ""]) * multiply_adds(name) * training.images

    def hours(self, trainings: Iterable[Training]) -> float | None:
        """Of all together; None where nothing has run yet."""
        times = [self.seconds(training) for training in trainings]
        return None if None in times else sum(filter(None, times)) / 3600


def left(cells: Iterable[Cell], rows: list[Row]) -> Iterator[Training]:
    """What is to be trained for the cells: initial models, tuning and runs that are not there."""
    there = {(r["setting"], r["candidate"]) for r in rows if r["stage"] == TUNING}
    asked: set[Any] = set()
    for cell in cells:
        own = SETTINGS[cell.setting]
        if any(is_of(row, cell) for row in rows):
            continue
        yield refinement(cell)
        initial = protocol(cell.setting).work / f"initial-{cell.model}.safetensors"
        if initial not in asked and not initial.exists():
            asked.add(initial)
            yield Training(cell.setting, "initial", own.initial["epochs"] * own.deployed)
        grid = candidates(tuned_as(cell.family)) if cell.rate is None else []
        where = SETTINGS[tuned_in(cell.setting)]
        for one in grid if len(grid) > 1 else []:
            if (where.name, one.name) not in asked | there:
                asked.add((where.name, one.name))
                images = where.tuning * (where.rows - where.held_out)
                yield Training(where.name, one.method, images)


def refinement(cell: Cell) -> Training:
    """The training that a cell's run is."""
    own, method = SETTINGS[cell.setting], candidates(cell.family)[0].method
    return Training(cell.setting, method, (cell.epochs or own.epochs) * own.rows)


@functools.cache
def multiply_adds(setting: str) -> int:
    """Those of one image of the setting's data, forward, in convolutions and linear layers."""
    own, found = SETTINGS[setting], []

    def note(layer: nn.Module, _inputs: Any, out: torch.Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        found.append(out[0].numel() * weight[0].numel())

    module = zoo.get(own.architecture).build(own.arguments).eval()
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(note)
    channels = own.arguments.get("in_channels", 3)
    size = 28 if own.data == "mnist" else 32
    with torch.inference_mode():
        module(torch.zeros(1, channels, size, size))
    return sum(found)
