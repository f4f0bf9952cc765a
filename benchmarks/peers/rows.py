"""Results: one JSON a run, with the keys of `benchmarks.lift`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.lift.settings import ROOT
from benchmarks.measure import machine
from benchmarks.peers.outside import versions

RUNS = ROOT / "benchmarks" / "results" / "peers"
COMMAND = "make bench-peers"


def found(setting: str, name: str) -> Any | None:
    """What was written under that name; None where there is nothing yet."""
    path = _path(setting, name)
    return json.loads(path.read_text()) if path.exists() else None


def written(setting: str, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row, with where and when it was made, kept under that name."""
    told = {
        **row,
        "command": COMMAND,
        "machine": machine(),
        "peers": versions(),
        "finished": time.strftime("%Y-%m-%d"),
    }
    path = _path(setting, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(told, indent=1) + "\n")
    beside.replace(path)
    return told


def measured(setting: str) -> list[dict[str, Any]]:
    """All runs on the test set that there are."""
    paths = sorted((RUNS / setting).glob("test-*.json"))
    return [json.loads(path.read_text()) for path in paths]


def _path(setting: str, name: str) -> Path:
    return RUNS / setting / f"{name}.json"
