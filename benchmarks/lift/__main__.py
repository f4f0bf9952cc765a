"""The command; see the package."""

from __future__ import annotations

import argparse
import json
import sys

from benchmarks.lift import protocol, report
from benchmarks.lift.candidates import grid
from benchmarks.lift.choice import chosen

PAGE = protocol.ROOT / "docs" / "results" / "lift.md"


def main() -> int:
    """Do the runs that are missing, then write table and plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lift")
    parser.add_argument("--models", type=int, default=3, help="initial models")
    parser.add_argument("--seeds", type=int, default=2, help="refinements of each")
    parser.add_argument("--only", nargs="*", help="families; default: all")
    parser.add_argument("--untuned", action="store_true", help="take each family's middle rate")
    arguments = parser.parse_args()
    if not (protocol.TRAIN.exists() and protocol.TEST.exists()):
        print(f"no Parquet files in {protocol.DATA}; point WEFT_DATA at them", file=sys.stderr)
        return 1
    families = {f: c for f, c in grid().items() if arguments.only is None or f in arguments.only}
    if arguments.untuned:
        families = {family: [own[len(own) // 2]] for family, own in families.items()}
    best = chosen(families, protocol.tune)
    for seed in range(arguments.seeds):
        for model in range(arguments.models):
            for candidate in best.values():
                protocol.measure(candidate, model, seed)
    rows = [json.loads(path.read_text()) for path in sorted(protocol.RUNS.glob("test-*.json"))]
    PAGE.write_text(report.page(rows))
    report.plot(rows, PAGE.with_suffix(".png"))
    print(PAGE.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
