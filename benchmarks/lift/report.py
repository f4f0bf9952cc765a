"""Runs -> Markdown and plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks.lift.figures import Figure, bytes_at, figures

#: What the paper sends: the yardstick.
PAPER, OURS = "ka-3", "sparse"


def page(rows: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    found = figures(rows)
    models = len({row["model"] for row in rows})
    seeds = len({row["seed"] for row in rows})
    hours = sum(row["seconds"] for row in rows) / 3600
    before = [100 * row["before"] for row in rows]
    lines = [
        "# Accuracy gained against bytes sent: VGG-small, CIFAR-10, 20% to 100%",
        "",
        f"Made by `make bench-lift`: {models} initial models ({min(before):.1f} to "
        f"{max(before):.1f}% on the test set), {seeds} refinement seeds each, the same for all; "
        f"{rows[0]['recipe']['epochs']} epochs; {hours:.1f} CPU hours after tuning. Learning rates "
        "were chosen on 5,000 held-out training rows. Bytes are of the package file, but those of "
        f"`{PAPER}`, which are 4 a learnable parameter, as the paper counts. Lifts are points of "
        "test accuracy of the decoded weights: mean, with its 95% interval.",
        "",
        "| family | bytes | lift | runs |",
        "|---|---|---|---|",
        *(
            f"| {f.family} | {f.bytes:,.0f} | {f.lift:+.2f} {_interval(f)} | {f.runs} |"
            for f in found
        ),
        "",
        *_claim(found),
        "![Points of test accuracy gained, against bytes](lift.png)",
        "",
    ]
    return "\n".join(lines)


def _interval(figure: Figure) -> str:
    return f"± {figure.half:.2f}" if figure.runs > 1 else ""


def _claim(found: list[Figure]) -> list[str]:
    """The bytes at which ours has the paper's lift."""
    paper = next((f for f in found if f.family == PAPER), None)
    if paper is None:
        return []
    needed = bytes_at((f for f in found if f.family.startswith(OURS)), paper.lift)
    if needed is None:
        return [f"The curve of `{OURS}` does not reach the lift of `{PAPER}`.", ""]
    told = (
        f"`{OURS}` has the lift of `{PAPER}` at {needed:,.0f} bytes: 1/{paper.bytes / needed:.1f}."
    )
    return [told, ""]


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Lift against bytes."""
    mpl.use("Agg")
    found = figures(rows)
    drawn, axes = plt.subplots(figsize=(7, 4.2), constrained_layout=True)
    for stem in dict.fromkeys(f.family.split("-")[0] for f in found):
        own = sorted((f for f in found if f.family.split("-")[0] == stem), key=lambda f: f.bytes)
        half = [0.0 if f.runs < 2 else f.half for f in own]
        sizes, lifts = [f.bytes for f in own], [f.lift for f in own]
        axes.errorbar(sizes, lifts, half, marker="o", markersize=5, capsize=2, label=stem)
    axes.set_xscale("log")
    axes.axhline(0, color="0.7", linewidth=0.8)
    axes.set_xlabel("bytes of the update")
    axes.set_ylabel("points of test accuracy gained")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    drawn.savefig(path, dpi=150, metadata={"Software": None})
