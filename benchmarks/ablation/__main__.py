"""The command; see the package."""

from __future__ import annotations

import argparse
import json
import sys

from benchmarks.ablation import protocol, report
from benchmarks.ablation.variants import VARIANTS
from benchmarks.lift.settings import ROOT

PAGE = ROOT / "docs" / "results" / "ablation.md"


def main() -> int:
    """Do the runs that are missing, then write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation")
    parser.add_argument("--models", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--only", nargs="*", help="variants; default: all")
    arguments = parser.parse_args()
    for name in arguments.only or VARIANTS:
        for seed in arguments.seeds:
            for model in arguments.models:
                row = protocol.run(VARIANTS[name], model, seed)
                change = row["loss_after"] - row["loss_before"]
                print(name, model, seed, row["bytes"], f"{change:+.4f}", file=sys.stderr)
    PAGE.write_text(report.page(_rows()))
    return 0


def _rows() -> list[report.Row]:
    """All runs that there are."""
    return [json.loads(path.read_text()) for path in sorted(protocol.RUNS.glob("*.json"))]


if __name__ == "__main__":
    sys.exit(main())
