"""The command; see the package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.lift.protocol import Protocol
from benchmarks.lift.settings import ROOT, SETTINGS
from benchmarks.peers import lora, lossless, nncodec, report, rows
from benchmarks.peers.dense import DECAYS

PAGE = ROOT / "docs" / "results" / "peers.md"
PEERS = ("nncodec", "lossless", "lora")
SETTING = "vgg_small"


def main() -> int:
    """Do the runs that are missing, then write table and plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--models", type=int, default=3, help="initial models")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each")
    parser.add_argument("--decays", type=float, nargs="*", default=list(DECAYS), help="of NNCodec")
    parser.add_argument("--ranks", type=int, nargs="*", default=list(lora.RANKS), help="of LoRA")
    parser.add_argument("--report", action="store_true", help="only write table and plot")
    arguments = parser.parse_args()
    protocol = Protocol(SETTINGS[SETTING])
    if protocol.setting.missing:
        print(protocol.setting.missing, file=sys.stderr)
        return 1
    if not arguments.report:
        _measure(protocol, arguments)
    _write(protocol, PAGE)
    return 0


def _measure(protocol: Protocol, arguments: argparse.Namespace) -> None:
    pairs = [(m, s) for s in range(arguments.seeds) for m in range(arguments.models)]
    if "nncodec" in arguments.peers:
        points, searched = nncodec.searched(protocol, arguments.decays)
        for model, seed in pairs:
            nncodec.measure(protocol, points, searched, model, seed)
    if "lossless" in arguments.peers:
        for model, seed in pairs:
            lossless.measure(protocol, model, seed)
    if "lora" in arguments.peers:
        rate = lora.tuned(protocol)
        for model, seed in pairs:
            for rank in arguments.ranks:
                lora.measure(protocol, rank, rate, model, seed)


def _write(protocol: Protocol, page: Path) -> None:
    theirs, ours = rows.measured(protocol.setting.name), protocol.measured()
    page.write_text(report.page(theirs, ours))
    report.plot(theirs, ours, page.with_suffix(".png"))
    print(page.read_text())


if __name__ == "__main__":
    sys.exit(main())
