"""What all matrices of faults share, and the summary of what was tried."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import undo
from tests.edge_agent.conftest import bench, plane, settings, shelf
from tests.edge_agent.plane import SHAPES, Plane, Shelf, make_shelf, serving
from tests.faults.stage import Stage

__all__ = ["bench", "plane", "settings", "shelf"]

#: Whether all points are tried, as `make test-faults` does, or a sample.
IS_FULL = os.environ.get("WEFT_FAULTS") == "full"
_TRIED = "tried: "


@pytest.fixture(scope="session")
def changed_shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """Versions in which all tensors differ."""
    return make_shelf(tmp_path_factory.mktemp("changed"), SHAPES)


@pytest.fixture(scope="session")
def lasting_plane() -> Iterator[Plane]:
    with serving(Plane()) as served:
        yield served


@pytest.fixture
def stage(
    lasting_plane: Plane, changed_shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Stage:
    """Where scenes are played; files that are changed in place are so in several blocks."""
    monkeypatch.setattr(undo, "BLOCK_FRAMES", 2)
    return Stage(lasting_plane, changed_shelf, tmp_path)


@pytest.fixture
def note_tried(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Notes for the summary how much was tried: a matrix, a mode, and counts by name."""

    def note(matrix: str, mode: str, **counts: int) -> None:
        for name, count in counts.items():
            record_property(f"{_TRIED}{matrix}, {mode}: {name}", count)

    return note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many points were tried in each mode."""
    totals: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, count in report.user_properties:
            if name.startswith(_TRIED) and report.when == "call":
                totals[name.removeprefix(_TRIED)] += count
    if totals:
        extent = "all points" if IS_FULL else "a sample"
        terminalreporter.section(f"faults: {extent}")
    for name, count in sorted(totals.items()):
        terminalreporter.line(f"{count:>8,} {name}")
