"""From runs to the lines of a table: of each setting and family the runs that its figure is of."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from benchmarks.lift.candidates import candidates
from benchmarks.lift.figures import Figure, figures
from benchmarks.lift.settings import SETTINGS
from benchmarks.paper.experiments import EXPERIMENTS, Experiment
from benchmarks.paper.runs import TUNING, Row, is_of, tuned_in
from benchmarks.paper.sizes import count, parameters


@dataclass(frozen=True)
class Line:
    """A family in a setting. `planned` are the runs that the plan has, `rows` those there are.

    `tuned`: its method's rate has been chosen, or it has none to choose.
    """

    setting: str
    family: str
    rows: tuple[Row, ...]
    planned: int
    tuned: bool

    @property
    def method(self) -> str:
        """`ka`, `rm`, `control`."""
        return self.family.partition("-")[0]

    @property
    def sent(self) -> int:
        """Parameters of the update."""
        return count(self.setting, self.family)

    @property
    def share(self) -> float:
        """Those, of the model's."""
        return self.sent / parameters(self.setting)

    @property
    def figure(self) -> Figure:
        """Mean bytes and lift, with the interval."""
        return figures(self.rows)[0]

    @property
    def before(self) -> float:
        """Mean accuracy before, in percent."""
        return 100 * statistics.mean(float(row["before"]) for row in self.rows)

    @property
    def epochs(self) -> int:
        """Of each run."""
        found: int = self.rows[0]["recipe"]["epochs"]
        return found

    @property
    def rate(self) -> str:
        """The highest learning rate of what the method trains."""
        rates = sorted({row["recipe"]["learning_rate"] or 0.0 for row in self.rows})
        return " / ".join(f"{rate:g}" for rate in rates if rate)

    @property
    def runs(self) -> str:
        """How many there are, marked where that is less than planned."""
        full = SETTINGS[self.setting].epochs
        marks = [] if len(self.rows) >= self.planned else [f"of {self.planned}"]
        marks += [] if self.epochs >= full else [f"with {self.epochs} epochs of {full}"]
        marks += [] if self.tuned else ["untuned"]
        return f"{len(self.rows)} {', '.join(marks)}: reduced" if marks else str(len(self.rows))


def lines(experiment: Experiment, rows: list[Row]) -> list[Line]:
    """Those for which there is a run; the runs of the setting's length, else the longest ones.

    Experiments that name epochs and rates themselves keep their runs to themselves.
    """
    rows = [row for row in rows if not any(is_named(e, row) for e in EXPERIMENTS.values())]
    planned = experiment.models * experiment.seeds
    tuned = {(row["setting"], row["method"]) for row in rows if row["stage"] == TUNING}
    found = []
    for setting in experiment.settings:
        for family in experiment.families(setting):
            own = [
                row
                for row in rows
                if (row["setting"], row["family"]) == (setting, family)
                and row["model"] < experiment.models
                and row["seed"] < experiment.seeds
                and row["stage"] != TUNING
            ]
            full = [row for row in own if row["stage"] == "test"]
            most = max((row["recipe"]["epochs"] for row in own), default=0)
            taken = full or [row for row in own if row["recipe"]["epochs"] == most]
            if taken:
                grid = candidates(family)
                known = len(grid) == 1 or (tuned_in(setting), grid[0].method) in tuned
                found.append(Line(setting, family, tuple(taken), planned, known))
    return found


def made(experiment: Experiment, rows: list[Row]) -> list[Row]:
    """The rows that are runs of its cells, rates and all."""
    cells = list(experiment.cells())
    return [row for row in rows if any(is_of(row, cell) for cell in cells)]


def is_named(experiment: Experiment, row: Row) -> bool:
    """Whether a row is of an experiment whose cells name their epochs and rates, as saturation."""
    names = {(f"epochs{epochs}", rate) for epochs in experiment.epochs for rate in experiment.rates}
    return (
        row["setting"] in experiment.settings
        and (row["stage"], row["recipe"]["learning_rate"]) in names
        and row["family"] in experiment.families(row["setting"])
    )
