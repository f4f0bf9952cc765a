"""What was measured beside what is wanted, a line for each."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from benchmarks.load.databases import KINDS
from server.tables import Json

#: Most that p99 may grow while other work goes on, as a factor.
MOST_GROWTH = 2.0
#: What "a few seconds" is taken to mean, until all devices of the rollout are admitted.
MOST_SECONDS = 5.0


def verdicts(folder: Path) -> str:
    """One line for each target of each database of which there are records; medians of the runs."""
    lines = []
    for kind in KINDS:
        for part, name in (("refining", "refining"), ("rollout", "creating")):
            runs = _runs(folder, kind, part)
            growth = [run[name]["p99"] / run["calm"]["p99"] for run in runs]
            lines += _line(f"{kind}: p99 of polls, {name} / calm", growth, MOST_GROWTH)
        seconds = [run["seconds"] for run in _runs(folder, kind, "rollout")]
        lines += _line(f"{kind}: seconds until all are admitted", seconds, MOST_SECONDS)
    return "\n".join(lines)


def _runs(folder: Path, kind: str, part: str) -> list[Json]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"{kind}-{part}-*"))]


def _line(what: str, values: list[float], most: float) -> list[str]:
    if not values:
        return []
    middle = statistics.median(values)
    word = "met" if middle <= most else "MISSED"
    ends = f"{min(values):.2f} to {max(values):.2f}"
    return [f"{word:7}{what}: {middle:.2f} ({ends}), wanted at most {most:g}"]
