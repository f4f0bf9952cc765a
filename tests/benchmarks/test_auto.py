"""`make bench-auto`: what a grid would have chosen, and the page made of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.auto.report import SHOWN, best_of, page, plot
from benchmarks.auto.setting import accuracies, grid, sizes
from server.publish.budget.curve import Curve, Point
from server.publish.budget.goal import Goal, read_goal


def row(name: str, size: int, after: float, **more: Any) -> dict[str, Any]:
    recipe = {"epochs": 4}
    told = {"name": name, "bytes": size, "before": 0.9, "after": after, "cpu_seconds": 10.0}
    return {**told, "seed": 0, "recipe": recipe, "options": {}, **more}


GRID = [row("a", 400, 0.93), row("b", 900, 0.95), row("c", 1500, 0.949), row("d", 5000, 0.97)]


def test_best_of_a_grid_is_by_the_rules_of_auto() -> None:
    def name(**goal: Any) -> str | None:
        best = best_of(GRID, Goal(**goal))
        return best["name"] if best else None

    assert name(max_bytes=1500) == "b"
    assert name(min_accuracy=94.9) == "b"
    assert name(min_accuracy=96, max_bytes=1500) is None
    assert name(max_bytes=300) is None


def test_goals_are_ones_that_auto_takes_and_the_grid_has_no_way_twice() -> None:
    for way in sizes() + accuracies(0.9, 0.97):
        read_goal(way.options)
    names = [way.name for way in grid()]
    assert len(set(names)) == len(names)


def test_page_says_what_was_lost_and_what_it_cost(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"trial": 1, "method": "sparse", "options": {"bytes": 1200}}
    fields |= {"accuracy_before": 0.9, "epochs": 4, "seconds": 9.0, "chosen": True}
    points = [Point(bytes=1490, accuracy_after=0.948, **fields)]
    goal = Goal(max_bytes=1500)
    curve = Curve(goal=goal, least_bytes=300, points=points, epochs=12, refinements=3.0)
    told = {"options": goal.model_dump(), "curve": curve.model_dump(), "cpu_seconds": 32.0}
    rows = [*GRID, row(SHOWN, 1490, 0.948) | told]
    text = page(rows)
    line = (
        "| at most 1,500 bytes | 0 | 95.00%, 900 bytes | 94.80%, 1,490 bytes | -0.20 | 3 | 3.2 x |"
    )
    assert line in text
    plot(rows, tmp_path / "auto.svg")
    assert "1,490 bytes" in (tmp_path / "auto.svg").read_text()
