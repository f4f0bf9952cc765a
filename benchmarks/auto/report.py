"""Runs -> Markdown, and the curve of one of them as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.auto.setting import accuracies, grid, sizes
from server.publish.budget.curve import Curve
from server.publish.budget.goal import Goal
from server.publish.budget.plot import draw, label

Row = dict[str, Any]

#: Whose curve is shown.
SHOWN = "auto-1500-bytes"


def page(rows: list[Row]) -> str:
    """The figures as Markdown."""
    tried, searches = _parted(rows)
    seeds = len({row["seed"] for row in rows})
    one = sum(row["cpu_seconds"] for row in tried) / len(tried)
    recipe = tried[0]["recipe"]
    lines = [
        "# `auto` against a grid: VGG-tiny, MNIST, 300 to 3,000 images",
        "",
        f"Made by `make bench-auto`: {seeds} initial model(s), {recipe['epochs']} epochs a "
        f"training, one thread, judged on the first 5,000 test images; "
        f"{len(tried) // seeds} trainings of a grid a "
        f"seed, {one:.0f} CPU seconds each on average, packaging and measuring included. A small "
        "model and few data: it shows what `auto` loses against a grid, not what updates bring. "
        "Grid and `auto` choose on the rows on which both are judged.",
        "",
        *_missing({row["name"] for row in rows}),
        "| asked for | seed | best of the grid | `auto` | difference | trainings | CPU |",
        "|---|---|---|---|---|---|---|",
        *(_line(row, [r for r in tried if r["seed"] == row["seed"]], one) for row in searches),
        "",
        "Difference: points of accuracy, and for an accuracy that was asked for bytes, of `auto` "
        "against the best of the grid. CPU: as a multiple of one training of the grid.",
        "",
        "## The grid",
        "",
        "| way | seed | bytes | before | after |",
        "|---|---|---|---|---|",
        *(
            f"| {row['name']} | {row['seed']} | {row['bytes']:,} | {row['before']:.2%} | "
            f"{row['after']:.2%} |"
            for row in sorted(tried, key=lambda r: (r["seed"], r["bytes"]))
        ),
        "",
        *_curves(searches),
        "![Accuracy against bytes, of one search](auto.svg)",
        "",
    ]
    return "\n".join(lines)


def _missing(there: set[str]) -> list[str]:
    """Says so where not all of it was run."""
    left = [way.name for way in [*grid(), *sizes(), *accuracies(0.0, 1.0)]]
    left = [name for name in left if name not in there]
    return [f"**Not all was run**; missing: {', '.join(left)}.", ""] if left else []


def _parted(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    return [r for r in rows if "curve" not in r], [r for r in rows if "curve" in r]


def _line(row: Row, grid: list[Row], one: float) -> str:
    goal = Goal.model_validate(row["options"])
    best = best_of(grid, goal)
    asked = (
        f"at most {goal.max_bytes:,} bytes" if goal.max_bytes else f"{goal.min_accuracy:g}% or more"
    )
    curve = Curve.model_validate(row["curve"])
    cost = f"{curve.refinements:g} | {row['cpu_seconds'] / one:.1f} x |"
    if best is None or "missed" in row:
        told = row.get("missed") or _what(row)
        return f"| {asked} | {row['seed']} | {_what(best)} | {told} | | {cost}"
    points = 100 * (row["after"] - best["after"])
    off = f"{points:+.2f}"
    if goal.max_bytes is None:
        off = f"{row['bytes'] - best['bytes']:+,} bytes"
    return f"| {asked} | {row['seed']} | {_what(best)} | {_what(row)} | {off} | {cost}"


def _what(row: Row | None) -> str:
    return "none" if row is None else f"{row['after']:.2%}, {row['bytes']:,} bytes"


def best_of(grid: list[Row], goal: Goal) -> Row | None:
    """What an exhaustive search of the grid would publish."""
    usable = [row for row in grid if goal.allows(row["bytes"]) and goal.is_reached(row["after"])]
    if goal.min_accuracy is not None:
        return min(usable, key=lambda row: (row["bytes"], -row["after"]), default=None)
    return max(usable, key=lambda row: (row["after"], -row["bytes"]), default=None)


def _curves(searches: list[Row]) -> list[str]:
    """All that the searches have measured."""
    lines = ["## What `auto` tried", "", "| asked for | seed | trial | bytes | after | chosen |"]
    lines.append("|---|---|---|---|---|---|")
    for row in searches:
        for point in Curve.model_validate(row["curve"]).points:
            mark = "yes" if point.chosen else ""
            lines.append(
                f"| {row['name']} | {row['seed']} | {label(point)} | {point.bytes:,} | "
                f"{point.accuracy_after:.2%} | {mark} |"
            )
    return [*lines, ""]


def plot(rows: list[Row], path: Path) -> None:
    """The curve that a server would show for one of the searches."""
    shown = next(row for row in rows if row["name"] == SHOWN)
    title = f"VGG-tiny on MNIST: {SHOWN.replace('-', ' ')}"
    path.write_text(draw(Curve.model_validate(shown["curve"]), title))
