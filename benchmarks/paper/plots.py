"""Runs -> a plot for each table and figure."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks.lift.figures import lift
from benchmarks.paper.experiments import METHODS, Experiment
from benchmarks.paper.lines import Line, lines, made
from benchmarks.paper.published import TABLE1
from benchmarks.paper.runs import Row
from benchmarks.paper.tables import initial_share

_COLOURS = {method: f"C{number}" for number, method in enumerate(METHODS)}
_CONTROL, _DENSE = "0.55", "0.2"
_APART = 0.16
#: How far curves are shown below the base, in shares of the highest lift.
_DEPTH = 1.5
#: Shares in percent.
_TICKS = (0.5, 1, 2, 5, 10, 20, 40, 100)


def plot(experiment: Experiment, rows: list[Row], folder: Path) -> None:
    """Draw an experiment, where there is a run of it."""
    mpl.use("Agg")
    found = lines(experiment, rows)
    if experiment.name == "saturation":
        found = []
    drawn, axes = plt.subplots(figsize=(7.6, 4.4), constrained_layout=True)
    if experiment.name == "saturation":
        has_runs = _saturation(axes, experiment, rows)
    else:
        has_runs = bool(found)
        _PANELS.get(experiment.name, _curves)(axes, found)
    axes.set_title(experiment.title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    if has_runs:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
        path = folder / f"paper-{experiment.name}.png"
        drawn.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(drawn)


def _curves(axes: Any, found: list[Line]) -> None:
    """Accuracy after against the share of the parameters, a line a method."""
    for method in METHODS:
        own = sorted((one for one in found if one.method == method), key=lambda one: one.share)
        if own:
            _errorbar(
                axes,
                [100 * one.share for one in own],
                [one.before + one.figure.lift for one in own],
                own,
                label=method,
                color=_COLOURS[method],
            )
    for name, colour in (("control", _CONTROL), ("dense", _DENSE)):
        for one in (one for one in found if one.method == name):
            after = one.before + one.figure.lift
            axes.axhline(after, color=colour, linestyle=":", label=f"{name} ({one.share:.1%})")
    if found:
        before, best = found[0].before, max(one.before + one.figure.lift for one in found)
        axes.axhline(before, color="0.8", label="before")
        # What loses much is only hinted at: beside it, the differences of the others do not show.
        axes.set_ylim(before - _DEPTH * (best - before), best + 0.2 * (best - before))
    axes.set_xscale("log")
    axes.set_xticks(_TICKS, [f"{tick:g}%" for tick in _TICKS])
    axes.minorticks_off()
    shares = [100 * one.share for one in found if one.method in METHODS]
    if shares:
        axes.set_xlim(min(shares) / 1.3, max(shares) * 1.3)
    axes.set_xlabel("parameters sent, of the model's")
    axes.set_ylabel("test accuracy, %")


def _table1(axes: Any, found: list[Line]) -> None:
    """Lifts by model and method: ours filled, the paper's hollow."""
    settings = list(dict.fromkeys(one.setting for one in found))
    shown = ("ka", "rm", "lru", "control", "dense")
    is_told = False
    colours = {**_COLOURS, "control": _CONTROL, "dense": _DENSE}
    for number, method in enumerate(shown):
        own = [one for one in found if one.method == method]
        x = [settings.index(one.setting) + _APART * (number - 2) for one in own]
        y = [one.figure.lift for one in own]
        _errorbar(axes, x, y, own, label=method, color=colours[method], linestyle="none")
        theirs = [(at, TABLE1.get((one.setting, method))) for at, one in zip(x, own, strict=True)]
        points = [(at, line.lift) for at, line in theirs if line]
        if points:
            style = {"markeredgecolor": colours[method], "markerfacecolor": "none"}
            label = None if is_told else "the paper's"
            is_told = True
            axes.plot(*zip(*points, strict=True), "D", markersize=6, label=label, **style)
    axes.axhline(0, color="0.8", linewidth=0.8)
    axes.set_xticks(range(len(settings)), settings)
    axes.set_xlim(-0.6, len(settings) - 0.4)
    axes.set_ylabel("points of test accuracy gained")


def _shares(axes: Any, found: list[Line]) -> None:
    """Lift against the initial share of the data, a line a family."""
    colours = {**_COLOURS, "control": _CONTROL, "dense": _DENSE}
    for family in dict.fromkeys(one.family for one in found):
        own = [one for one in found if one.family == family]
        x = [initial_share(one.setting) for one in own]
        y = [one.figure.lift for one in own]
        dotted = {"linestyle": ":"} if own[0].method in ("control", "dense") else {}
        _errorbar(axes, x, y, own, label=family, color=colours[own[0].method], **dotted)
    axes.axhline(0, color="0.8", linewidth=0.8)
    axes.set_xlabel("training data of the deployed model, of all")
    axes.set_ylabel("points of test accuracy gained")


def _saturation(axes: Any, experiment: Experiment, rows: list[Row]) -> bool:
    """KA's lift against the length of the training, a line a rate; returns whether there is one."""
    found = made(experiment, rows)
    for rate in experiment.rates:
        lifts: dict[int, list[float]] = {}
        for row in found:
            if row["recipe"]["learning_rate"] == rate:
                lifts.setdefault(row["recipe"]["epochs"], []).append(lift(row))
        epochs = sorted(lifts)
        means = [statistics.mean(lifts[number]) for number in epochs]
        axes.plot(epochs, means, "o-", label=f"rate {rate:g}")
    paper = TABLE1["vgg_small", "ka"].lift
    axes.axhline(paper, color="0.6", linestyle=":", label=f"the paper's, {paper:+.2f}")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("epochs")
    axes.set_ylabel("points of test accuracy gained")
    return bool(found)


def _errorbar(axes: Any, x: list[float], y: list[float], own: list[Line], **style: Any) -> None:
    """Points with their intervals, where they have one."""
    half = [one.figure.half if one.figure.runs > 1 else 0.0 for one in own]
    axes.errorbar(x, y, half, marker="o", markersize=5, capsize=2, **style)


_PANELS = {"table1": _table1, "reduced": _table1, "fig6": _shares}
