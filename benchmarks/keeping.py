"""Runs as they are kept: one JSON each, so that a benchmark goes on where it was interrupted."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import machine

Row = dict[str, Any]


def read(path: Path) -> Row | None:
    """The run that is kept there; None where there is none yet."""
    if not path.exists():
        return None
    row: Row = json.loads(path.read_text())
    return row


def keep(path: Path, row: Mapping[str, Any], command: str) -> Row:
    """The run with the command, the machine and the day, kept there: whole, or not at all."""
    told = {**row, "command": command, "machine": machine(), "finished": time.strftime("%Y-%m-%d")}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(told, indent=1) + "\n")
    beside.replace(path)
    return told


def tell(line: Mapping[str, Any]) -> None:
    """Progress of a refinement, once an epoch and once a stage."""
    if line.get("step") in (None, line.get("steps")) and "curve" not in line:
        print(json.dumps(line), file=sys.stderr, flush=True)
