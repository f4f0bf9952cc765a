"""A small server that speaks the device plane, weights and packages for it, and agents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.edge_agent.plane import MODEL, Bench, Plane, Shelf, make_shelf, serving


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return make_shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture
def plane() -> Iterator[Plane]:
    """A server on loopback, ended with the test."""
    with serving(Plane()) as served:
        yield served


@pytest.fixture
def settings(plane: Plane, tmp_path: Path) -> dict[str, Any]:
    """Plain settings, to be changed by a test before use."""
    return {
        "server": plane.url,
        "name": "lamp-3",
        "state_dir": str(tmp_path / "state"),
        "enrolment_token": plane.enrolment_token,
        "timeout_seconds": 20,
        "models": {MODEL: {}},
    }


@pytest.fixture
def bench(settings: dict[str, Any]) -> Bench:
    return Bench(settings)
