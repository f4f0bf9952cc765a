"""`make bench-load`: measure, saving each record as it is made, then write the page.

python -m benchmarks.load                 all of it: about 7 minutes
python -m benchmarks.load --resume        what an interrupted run left out
python -m benchmarks.load --only sqlite   one database
python -m benchmarks.load --quick         a small fleet, to see that it works; no figures
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from argparse import RawTextHelpFormatter as RawText
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.load import fleet, report
from benchmarks.load.databases import KINDS, Databases, Site, databases
from benchmarks.load.machine import machine
from benchmarks.load.scenario import FULL, QUICK, Scale, beside_refinement, polls, rollout
from benchmarks.load.serving import serving
from server.tables import Json

RESULTS = Path(__file__).resolve().parent.parent / "results" / "load"
QUICK_RESULTS = Path("var/load-quick")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "results" / "load.md"
BEGAN = time.monotonic()


def say(text: str) -> None:
    """Tell progress, on stderr."""
    print(f"{time.monotonic() - BEGAN:6.1f} s  {text}", file=sys.stderr, flush=True)


class Records:
    """Records in one folder, a file each."""

    def __init__(self, folder: Path, runs: int, resume: bool) -> None:
        self._folder, self._runs = folder, runs
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.json") if not resume else ():
            old.unlink()

    def keep(self, name: str, make: Callable[[], Json]) -> Json:
        """The record of that name: the one there is, else a new one, saved at once."""
        path = self._folder / f"{name}.json"
        if not path.exists():
            _save(path, make())
        found: Json = json.loads(path.read_text())
        return found

    def keep_all(self, name: str, make: Callable[[], Iterable[Json]]) -> list[Json]:
        """The records of all runs of that name; where one is missing, all are made anew."""
        paths = [self._folder / f"{name}-{run}.json" for run in range(self._runs)]
        if not all(path.exists() for path in paths):
            for path, record in zip(paths, make(), strict=True):
                _save(path, record)
        return [json.loads(path.read_text()) for path in paths]


def _save(path: Path, record: Json) -> None:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    path.write_text(json.dumps({"measured_at": at, **record}, indent=1) + "\n")


def measure(kind: str, scale: Scale, records: Records) -> None:
    """All figures of one database."""
    with (
        tempfile.TemporaryDirectory(prefix="weft-load-") as folder,
        databases(kind, Path(folder)) as found,
    ):
        say(f"{kind}: {scale.fleet + scale.idle:,} devices enrol")
        site = found.create()
        with serving(site.folder, site.url) as server:
            fleet.upload_models(server)
        records.keep(f"{kind}-fleet", lambda: _enrol(found, site, scale))
        known = fleet.etag(site)
        runs = records.keep_all(f"{kind}-polls", lambda: polls(site, known, scale, say))
        rate = scale.share * statistics.median(run["poll"]["per_second"] for run in runs)
        say(f"{kind}: {rate:,.0f} polls a second, {scale.share:.0%} of that, beside other work")
        copy = found.copy(site)
        records.keep_all(
            f"{kind}-refining", lambda: beside_refinement(copy, known, rate, scale, say)
        )
        found.drop(copy)
        for run in range(scale.runs):
            records.keep(
                f"{kind}-rollout-{run}",
                lambda run=run: rollout(found, site, known, rate, scale, run, say),  # type: ignore[misc]
            )


def _enrol(found: Databases, site: Site, scale: Scale) -> Json:
    before, began = found.size(site), time.monotonic()
    fleet.enrol(site, scale.fleet, scale.idle)
    devices = scale.fleet + scale.idle
    return {
        "devices": devices,
        "seconds": time.monotonic() - began,
        "bytes_a_device": (found.size(site) - before) / devices,
    }


def main() -> None:
    """Measure what is asked for; write the page where all figures are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RawText)
    parser.add_argument("--quick", action="store_true", help="a small fleet, one run, no page")
    parser.add_argument("--resume", action="store_true", help="keep the records there are")
    parser.add_argument("--only", choices=KINDS, help="one database")
    parser.add_argument("--folder", type=Path, help="where the records go")
    given = parser.parse_args()
    scale = QUICK if given.quick else FULL
    folder = given.folder or (QUICK_RESULTS if given.quick else RESULTS)
    records = Records(folder, scale.runs, given.resume)
    records.keep("machine", lambda: {"command": "make bench-load", **machine()})
    for kind in (given.only,) if given.only else KINDS:
        measure(kind, scale, records)
    text = report.page(folder)
    print(text)
    if not (given.quick or given.only):
        PAGE.write_text(text)
        report.plot(folder, PAGE.with_suffix(".png"))


if __name__ == "__main__":
    main()
