"""Runs -> Markdown and plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.lift import report as lift
from benchmarks.lift.claim import BYTES, claim
from benchmarks.lift.figures import figures

Rows = list[dict[str, Any]]

TITLES = {
    "row_lstm": "LSTM, an image row by row (28 steps of 28 values)",
    "small_vit": "Transformer, an image as 16 patches",
}


def page(found: Mapping[str, Rows]) -> str:
    """The figures as Markdown, model by model."""
    lines = [
        "# Layers that are no convolutions",
        "",
        "Made by `make bench-layers`. MNIST: deployed with the first 1,200 training rows (2%), "
        "updated with 20,000 of them, judged on the 10,000 of the test set. Rates were chosen on "
        "5,000 held-out rows, by short trainings on one grid for every method. Initial models and "
        "seeds are the same for all (paired). `dense` retrains every weight and counts 4 bytes a "
        "weight; `lora` is low-rank adaptation, counted at 4 bytes a parameter as its files hold "
        "them, `alone` without biases and norms; `sparse` and `control` (biases and norms only) "
        "are counted as packages. Lifts are points of accuracy of the decoded weights: mean, with "
        "its 95% interval, which is wide over two runs.",
        "",
    ]
    for setting, rows in found.items():
        lines += [*_section(setting, rows), ""]
    return "\n".join([*lines, "![Points of test accuracy gained, against bytes](layers.png)", ""])


def _section(setting: str, rows: Rows) -> list[str]:
    before = [100 * row["before"] for row in rows]
    told = claim(rows)
    return [
        f"## {TITLES[setting]}",
        "",
        f"`{setting}`, {told.dense.bytes / 4:,.0f} parameters; "
        f"{_many(len({row['model'] for row in rows}), 'initial model')} ({min(before):.1f} to "
        f"{max(before):.1f}%), {_many(len({row['seed'] for row in rows}), 'seed')} each; "
        f"{rows[0]['recipe']['epochs']} epochs.",
        "",
        "| family | bytes | of the dense bytes | lift | of the dense lift | runs |",
        "|---|---|---|---|---|---|",
        *(
            f"| {f.family} | {f.bytes:,.0f} | {100 * f.bytes / told.dense.bytes:.2f}% | "
            f"{f.lift:+.2f} {lift.interval(f)} | {100 * f.lift / told.dense.lift:.0f}% | {f.runs} |"
            for f in sorted(figures(rows), key=lambda f: f.bytes)
        ),
        "",
        f"{100 * BYTES:.0f}% of the dense bytes are {told.limit:,.0f}.",
        "",
        *lift.half(told, told.needs),
    ]


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def plot(found: Mapping[str, Rows], path: Path) -> None:
    """Lift against bytes, a panel a model; where the claim's two bounds cross is its corner."""
    lift.plot({TITLES[name].partition(",")[0]: rows for name, rows in found.items()}, path, _bounds)


def _bounds(axes: Any, rows: Rows) -> None:
    told = claim(rows)
    axes.axhline(told.wanted, color="0.6", linewidth=0.8, linestyle="--")
    axes.axvline(told.limit, color="0.6", linewidth=0.8, linestyle="--")
