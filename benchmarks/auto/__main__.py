"""The command; see the package."""

from __future__ import annotations

import argparse
import json
import sys
import time

from benchmarks.auto import report
from benchmarks.auto.runs import RUNS, measure
from benchmarks.auto.setting import ROOT, TEST, TRAIN, accuracies, grid, sizes

PAGE = ROOT / "docs" / "results" / "auto.md"


def main() -> int:
    """Do the runs that are missing, as far as the time goes, then write page and plots."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.auto")
    parser.add_argument("--seeds", type=int, default=1, help="initial models, one refinement each")
    parser.add_argument("--minutes", type=float, help="begin no run after so long")
    arguments = parser.parse_args()
    if not (TRAIN.exists() and TEST.exists()):
        print(f"no Parquet files at {TRAIN.parent}; point WEFT_DATA at them", file=sys.stderr)
        return 1
    until = time.monotonic() + 60 * (arguments.minutes or 1e6)
    if not all(_measured(seed, until) for seed in range(arguments.seeds)):
        print("time is up; the same command goes on", file=sys.stderr)
        return 0
    write_page()
    return 0


def write_page() -> None:
    """Page and plot from all runs that there are."""
    rows = [json.loads(path.read_text()) for path in sorted(RUNS.glob("*.json"))]
    PAGE.write_text(report.page(rows))
    report.plot(rows, PAGE.with_suffix(".svg"))
    print(PAGE.read_text())


def _measured(seed: int, until: float) -> bool:
    """Whether all runs of a seed are there now: sizes, the grid, and what its ends make of it."""
    ways, found = [*sizes(), *grid()], {}
    for way in ways:
        if time.monotonic() > until:
            return False
        found[way.name] = measure(way, seed)
    dense = found[ways[-1].name]
    for way in accuracies(dense["before"], dense["after"]):
        if time.monotonic() > until:
            return False
        measure(way, seed)
    return True


if __name__ == "__main__":
    sys.exit(main())
