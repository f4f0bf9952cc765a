"""The command; see the package."""

from __future__ import annotations

import argparse
import sys

from benchmarks.lift import report
from benchmarks.lift.choice import chosen
from benchmarks.lift.protocol import Protocol
from benchmarks.lift.settings import ROOT, SETTINGS

PAGE = ROOT / "docs" / "results" / "lift.md"

#: What is compared where nothing else is asked for: the paper's methods at the sizes of its Table
#: 1, the first of them in few bits, `sparse` at several sizes, and two controls.
FAMILIES = {
    "vgg_small": ("ka-3", "ka-3-coded", "rm-4.8", "lru-22", "ml-20", "ml_delta-20", "lra-16"),
    "vgg_medium": ("ka-3", "ka-3-coded", "rm-2.4", "lru-22"),
    "vgg_tiny": ("ka-1", "ka-3"),
    "mnist": ("ka-3", "ka-3-coded", "rm-5", "lru-12"),
}
AIMS = {
    "vgg_small": (600, 1200, 2400, 6000, 16000),
    "vgg_medium": (1200, 2400, 4800, 10000),
    "vgg_tiny": (150, 300, 600, 1200),
    "mnist": (300, 600, 1200, 2400),
}


def families(setting: str) -> list[str]:
    """The families of a setting."""
    sparse = (f"sparse-{aim}" for aim in AIMS[setting])
    return ["control", *FAMILIES[setting], *sparse, "dense"]


def main() -> int:
    """Do the runs that are missing, then write table and plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lift")
    parser.add_argument("--settings", nargs="*", default=list(FAMILIES), choices=SETTINGS)
    parser.add_argument("--models", type=int, default=3, help="initial models")
    parser.add_argument("--seeds", type=int, default=2, help="refinements of each")
    parser.add_argument("--families", nargs="*", help="default: those of the setting")
    parser.add_argument("--report", action="store_true", help="only write table and plot")
    arguments = parser.parse_args()
    for name in () if arguments.report else arguments.settings:
        protocol = Protocol(SETTINGS[name])
        if protocol.setting.missing:
            print(protocol.setting.missing, file=sys.stderr)
            return 1
        best = chosen(arguments.families or families(name), protocol.tune)
        for seed in range(arguments.seeds):
            for model in range(arguments.models):
                for candidate in best.values():
                    protocol.measure(candidate, model, seed)
    found = {name: Protocol(SETTINGS[name]).measured() for name in FAMILIES}
    found = {name: rows for name, rows in found.items() if rows}
    PAGE.write_text(report.page(found))
    report.plot(found, PAGE.with_suffix(".png"))
    print(PAGE.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
