"""The command; see the package."""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks.lift.protocol import device
from benchmarks.lift.settings import ROOT, SETTINGS
from benchmarks.paper import plots, runs, tables
from benchmarks.paper.experiments import EXPERIMENTS, Cell, untuned

PAGE = ROOT / "docs" / "results" / "paper.md"


def main() -> int:
    """Do the runs that are missing, then write page and plots."""
    arguments = _arguments()
    limits = arguments.models, arguments.seeds, arguments.epochs, arguments.settings
    planned = {
        name: [
            untuned(cell) if arguments.untuned else cell
            for cell in EXPERIMENTS[name].limited(*limits).cells()
            if arguments.families is None or cell.family in arguments.families
        ]
        for name in arguments.only
    }
    if arguments.plan:
        return _tell_plan(planned)
    if not arguments.report:
        until = time.monotonic() + 60 * arguments.minutes
        for name, cells in planned.items():
            if not _run(name, cells, until):
                break
    _report()
    return 0


def _report() -> None:
    rows = runs.load()
    PAGE.write_text(tables.page(rows))
    for experiment in EXPERIMENTS.values():
        plots.plot(experiment, rows, PAGE.parent)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper")
    only = list(EXPERIMENTS)
    parser.add_argument("--only", nargs="*", default=only, choices=only, help="default: all")
    parser.add_argument("--settings", nargs="*", choices=SETTINGS, help="of those, these alone")
    parser.add_argument("--families", nargs="*", help="of those, these alone")
    parser.add_argument("--models", type=int, help="initial models; default: the plan's")
    parser.add_argument("--seeds", type=int, help="refinements of each; default: the plan's")
    parser.add_argument("--epochs", type=int, help="of a refinement; default: the setting's")
    parser.add_argument("--untuned", action="store_true", help="at each method's own rate")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no run after so many"
    )
    parser.add_argument("--plan", action="store_true", help="only say what is left")
    parser.add_argument("--report", action="store_true", help="only write page and plots")
    found = parser.parse_args()
    if found.untuned and found.epochs is None:
        parser.error("--untuned is for reduced runs: give --epochs")
    return found


def _run(name: str, cells: list[Cell], until: float) -> bool:
    """Do what is missing of an experiment; returns whether there was time for all of it."""
    for cell in cells:
        setting = SETTINGS[cell.setting]
        if setting.missing:
            print(setting.missing, file=sys.stderr)
            return False
        rows = runs.load()
        if any(runs.is_of(row, cell) for row in rows):
            continue
        if time.monotonic() > until:
            return False
        print(_left(name, cells, rows), file=sys.stderr, flush=True)
        runs.make(cell)
    return True


def _left(name: str, cells: list[Cell], rows: list[runs.Row]) -> str:
    """What is left of an experiment, in a line."""
    missing = sum(not any(runs.is_of(row, cell) for row in rows) for cell in cells)
    hours = runs.Pace(rows).hours(runs.left(cells, rows))
    about = (
        "how long nobody knows: nothing has run yet" if hours is None else f"about {hours:.1f} h"
    )
    return f"{name}: {missing} of {len(cells)} runs left, {about} on {device()}"


def _tell_plan(planned: dict[str, list[Cell]]) -> int:
    rows = runs.load()
    for name, cells in planned.items():
        print(_left(name, cells, rows))
    print(_left("all", list(dict.fromkeys(c for cells in planned.values() for c in cells)), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
