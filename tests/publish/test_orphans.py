"""Blobs that a crash left without a row, and what must never be taken for such."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from server.db import writing
from server.publish.orphans import MIN_AGE, remove_orphans
from server.publish.refinement import STATISTICS_BLOB
from server.tables import Version, now


@pytest.fixture
def put(server: Any, tmp_path: Path) -> Callable[..., str]:
    """Keeps a blob as it would be after some time; its SHA-256."""

    def put(content: bytes, age: timedelta = 2 * MIN_AGE) -> str:
        (tmp_path / "source").write_bytes(content)
        blobs = server.app.state.blobs
        sha256 = str(blobs.put(tmp_path / "source").sha256)
        moment = (now() - age).timestamp()
        os.utime(blobs.place(sha256), (moment, moment))
        return sha256

    return put


def age_all(server: Any) -> set[str]:
    """Make every blob old; their names."""
    paths = list(server.settings.blobs_dir.glob("??/*"))
    for path in paths:
        os.utime(path, (0, 0))
    return {path.name for path in paths}


def blobs_of(server: Any) -> set[str]:
    return {path.name for path in server.settings.blobs_dir.glob("??/*")}


@pytest.mark.sqlite("the start of one process is no time to remove what others may be using")
def test_the_next_start_removes_what_no_row_names(fleet: Any, serve: Any, put: Any) -> None:
    fleet.publish(1, 2, b"a package")
    statistics = put(b"statistics")
    with writing(fleet.server.app.state.engine) as session:
        session.get_one(Version, 2).metrics = {STATISTICS_BLOB: statistics}
    named = age_all(fleet.server)
    orphan, fresh = put(b"left by a crash"), put(b"just kept", timedelta())
    fleet.server.stop()
    again = serve()
    assert len(named) == 4
    assert blobs_of(again) == named | {fresh}
    assert orphan not in blobs_of(again)


def test_a_database_that_names_nothing_removes_nothing(server: Any, put: Any) -> None:
    kept = put(b"of another database")
    assert remove_orphans(server.app.state.engine, server.app.state.blobs) == 0
    assert blobs_of(server) == {kept}
