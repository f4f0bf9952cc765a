"""Runs -> Markdown and plot."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks.lift.claim import Claim, claim, has_dense
from benchmarks.lift.figures import Figure, Ratio, envelope, figures, kind_of, ratio

#: What the paper sends: the yardstick.
PAPER, OURS = "ka-3", ("sparse", "sparse taught")

Rows = list[dict[str, Any]]


def page(found: Mapping[str, Rows]) -> str:
    """The figures as Markdown, setting by setting."""
    lines = [
        "# Accuracy gained against bytes sent",
        "",
        "Made by `make bench-lift`. Learning rates were chosen on held-out training rows, by one "
        "short training each on the same grid; the test set was read once a run. Initial models "
        "and seeds are the same for all families (paired). Bytes are of the package file; those "
        "of the paper's methods (`ka-3`, `rm`, `lru`, `lra`, `ml`) and of `dense` are 4 a "
        "learnable parameter, as the paper counts. Lifts are points of test accuracy of the "
        "decoded weights: mean, with its 95% interval.",
        "",
    ]
    for setting, rows in found.items():
        lines += [*_section(setting, rows), ""]
    return "\n".join([*lines, "![Points of test accuracy gained, against bytes](lift.png)", ""])


def _section(setting: str, rows: Rows) -> list[str]:
    before = [100 * row["before"] for row in rows]
    hours = sum(row["seconds"] for row in rows) / 3600
    return [
        f"## {setting}",
        "",
        f"{len({row['model'] for row in rows})} initial models ({min(before):.1f} to "
        f"{max(before):.1f}% on the test set), up to {len({row['seed'] for row in rows})} seeds; "
        f"{rows[0]['recipe']['epochs']} epochs; {hours:.1f} CPU hours after tuning.",
        "",
        "| family | bytes | lift | runs |",
        "|---|---|---|---|",
        *(
            f"| {f.family} | {f.bytes:,.0f} | {f.lift:+.2f} {interval(f)} | {f.runs} |"
            for f in sorted(figures(rows), key=lambda f: f.bytes)
        ),
        "",
        *_claim(rows),
        *([*half(claim(rows), OURS), ""] if has_dense(rows) else []),
    ]


def interval(figure: Figure) -> str:
    """As a table has it; empty for a single run."""
    return f"± {figure.half:.2f}" if figure.runs > 1 else ""


def _claim(rows: Rows) -> list[str]:
    """What part of the paper's bytes ours needs for the paper's lift."""
    paper = [row for row in rows if row["family"] == PAPER]
    own = {kind: [row for row in rows if kind_of(row["family"]) == kind] for kind in OURS}
    return [
        line for kind, found in own.items() if paper and found
        for line in (needed(kind, ratio(paper, found)), "")
    ]  # fmt: skip


def needed(kind: str, found: Ratio | None) -> str:
    """What a kind needs for the yardstick's lift, as a sentence."""
    if found is None:
        return f"The curve of `{kind}` does not span the lift of `{PAPER}`."
    told = f"95% interval {spread(found)}, over {found.pairs} pairs of model and seed"
    return (
        f"`{kind}` has the lift of `{PAPER}` at {found.ours:,.0f} bytes: **1/{found.times:.1f}** "
        f"({told if found.pairs > 1 else 'a single run of each: no interval'})."
    )


def half(told: Claim, kinds: Collection[str]) -> list[str]:
    """What kinds need for half of the dense lift, as sentences of a list."""
    lines = [f"Half of the dense lift is {told.wanted:+.2f}.", ""]
    for kind, need in told.needs.items():
        if kind not in kinds:
            continue
        if need.bytes is None:
            lines.append(f"- `{kind}` does not reach it at these sizes.")
            continue
        least = "" if need.exactly else "at most "
        share = 100 * need.bytes / told.dense.bytes
        lines.append(
            f"- `{kind}` has it in {least}{need.bytes:,.0f} bytes: **{share:.2f}%** of the dense "
            "bytes."
        )
    return lines


def spread(found: Ratio) -> str:
    """The interval of a ratio."""
    least = f"1/{found.least:.1f}" if found.least else "not reached"
    most = f"1/{found.most:.1f}" if math.isfinite(found.most) else "theirs not reached"
    return f"{least} to {most}"


def plot(
    found: Mapping[str, Rows], path: Path, mark: Callable[[Any, Rows], None] | None = None
) -> None:
    """Lift against bytes, a panel a setting, a colour a kind; `mark` adds to each panel."""
    mpl.use("Agg")
    across = min(2, len(found))
    down = math.ceil(len(found) / across)
    drawn, panels = plt.subplots(
        down, across, figsize=(7.6 * across, 4.6 * down), constrained_layout=True, squeeze=False
    )
    colours = _colours(row for rows in found.values() for row in rows)
    for axes, (setting, rows) in zip(panels.flat, found.items(), strict=False):
        _curves(axes, rows, colours)
        axes.set_title(setting)
        if mark is not None:
            mark(axes, rows)
    for axes in panels[:, 0]:
        axes.set_ylabel("points of test accuracy gained")
    for axes in list(panels.flat)[len(found) :]:
        axes.remove()
    drawn.savefig(path, dpi=150, metadata={"Software": None})
    plt.close(drawn)


def _colours(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One for each kind of family, the darker ones first."""
    shades = list(mpl.colormaps["tab20"](range(20)))
    kinds = dict.fromkeys(f.kind for f in sorted(figures(rows), key=lambda f: f.bytes))
    return dict(zip(kinds, itertools.cycle([*shades[::2], *shades[1::2]]), strict=False))


def _curves(axes: Any, rows: Rows, colours: Mapping[str, Any]) -> None:
    """One line a kind of family, through what one would send; all points, with intervals."""
    kinds: dict[str, list[Figure]] = {}
    for figure in sorted(figures(rows), key=lambda f: f.bytes):
        kinds.setdefault(figure.kind, []).append(figure)
    for kind, own in kinds.items():
        half = [0.0 if f.runs < 2 else f.half for f in own]
        sizes, lifts = [f.bytes for f in own], [f.lift for f in own]
        colour, sent = colours[kind], envelope(own)
        faint = {"ecolor": mpl.colors.to_rgba(colour, 0.45), "elinewidth": 1, "capsize": 2}
        axes.errorbar(sizes, lifts, half, fmt="o", markersize=5, color=colour, **faint)
        line = [f.bytes for f in sent], [f.lift for f in sent]
        axes.plot(*line, marker="o", markersize=5, color=colour, label=kind)
    axes.set_xscale("log")
    axes.axhline(0, color="0.7", linewidth=0.8)
    # What was run a few times only has intervals beyond everything: they end at the frame.
    lifts = [f.lift for f in figures(rows)]
    axes.set_ylim(min(0, *lifts) - 0.5, max(lifts) + 0.8)
    axes.set_xlabel("bytes of the update")
    # Of its own: settings differ in what they compare.
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
