"""Results: one JSON a run, with the keys of `benchmarks.lift`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import keeping
from benchmarks.lift.settings import ROOT
from benchmarks.peers.outside import versions

RUNS = ROOT / "benchmarks" / "results" / "peers"
COMMAND = "make bench-peers"


def found(setting: str, name: str) -> Any | None:
    """What was written under that name; None where there is nothing yet."""
    return keeping.read(_path(setting, name))


def written(setting: str, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row, with where and when it was made, kept under that name."""
    return keeping.keep(_path(setting, name), {**row, "peers": versions()}, COMMAND)


def measured(setting: str) -> list[dict[str, Any]]:
    """All runs on the test set that there are."""
    paths = sorted((RUNS / setting).glob("test-*.json"))
    return [json.loads(path.read_text()) for path in paths]


def _path(setting: str, name: str) -> Path:
    return RUNS / setting / f"{name}.json"
