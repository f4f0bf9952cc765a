"""The command; see the package."""

from __future__ import annotations

import argparse
import sys

from benchmarks.layers import report
from benchmarks.lift.choice import chosen
from benchmarks.lift.claim import has_dense
from benchmarks.lift.protocol import Protocol
from benchmarks.lift.settings import ROOT, SETTINGS

PAGE = ROOT / "docs" / "results" / "layers.md"
NAMES = ("row_lstm", "small_vit")
FAMILIES = (
    *("sparse-300", "sparse-1200", "sparse-4000"),
    *("lora-1-alone", "lora-1", "lora-4"),
    *("dense", "control"),
)


def main() -> int:
    """Do the runs that are missing, then write table and plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers")
    parser.add_argument("--settings", nargs="*", default=list(NAMES), choices=NAMES)
    parser.add_argument("--models", type=int, default=2, help="initial models")
    parser.add_argument("--seeds", type=int, default=1, help="refinements of each")
    parser.add_argument("--report", action="store_true", help="only write table and plot")
    arguments = parser.parse_args()
    settings = {name: Protocol(SETTINGS[name], "make bench-layers") for name in NAMES}
    for name in () if arguments.report else arguments.settings:
        protocol = settings[name]
        if protocol.setting.missing:
            print(protocol.setting.missing, file=sys.stderr)
            return 1
        best = chosen(FAMILIES, protocol.tune)
        for seed in range(arguments.seeds):
            for model in range(arguments.models):
                for candidate in best.values():
                    protocol.measure(candidate, model, seed)
    found = {name: settings[name].measured() for name in NAMES}
    found = {name: rows for name, rows in found.items() if has_dense(rows)}
    PAGE.write_text(report.page(found))
    report.plot(found, PAGE.with_suffix(".png"))
    print(PAGE.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
