"""`weft backup` and `weft restore` beside a server that runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from server.lock import LOCK_NAME

pytestmark = pytest.mark.sqlite("whose data folder serves one process")


@pytest.fixture
def server(serve: Any) -> Any:
    """One of the test's own, in this process."""
    return serve()


@pytest.fixture
def data(fleet: Any) -> Path:
    """The data folder of a running server with two versions and a device."""
    fleet.enrol(fleet.digests[0])
    return Path(fleet.server.settings.data_dir)


def test_a_running_server_is_backed_up_and_restored_elsewhere(
    data: Path, weft: Any, tmp_path: Path, serve: Any, fleet: Any
) -> None:
    taken = weft("backup", tmp_path / "backup", "--data-dir", data, "--json")
    assert (taken.status, taken.json["state"], taken.json["blobs"]) == (0, "taken", 2)
    whole = weft("backup", tmp_path / "backup", "--verify", "--json")
    assert (whole.status, whole.json["state"]) == (0, "whole")

    elsewhere = tmp_path / "elsewhere"
    done = weft("restore", tmp_path / "backup", "--data-dir", elsewhere, "--json")
    assert (done.status, done.json["rows"]) == (0, taken.json["rows"])
    fleet.server.stop()
    shutil.copytree(fleet.server.settings.keys_folder, elsewhere / "keys")  # no backup holds them
    second = serve(data_dir=elsewhere)
    versions = second.client.get("/api/v1/models/m/versions").json()["items"]
    assert {version["weights_digest"] for version in versions} == set(fleet.digests)
    for version in versions:
        url = f"/api/v1/models/m/versions/{version['number']}/weights"
        assert second.client.get(url).content == fleet.files[version["number"] - 1].read_bytes()


def test_nothing_is_restored_under_a_running_server(data: Path, weft: Any, tmp_path: Path) -> None:
    assert weft("backup", tmp_path / "backup", "--data-dir", data).status == 0
    refused = weft("restore", tmp_path / "backup", "--data-dir", data, "--json")
    assert (refused.status, refused.code) == (2, "database.in_use")
    assert (data / LOCK_NAME).exists()


def test_a_database_that_holds_something_is_left_alone(
    data: Path, weft: Any, tmp_path: Path
) -> None:
    weft("backup", tmp_path / "backup", "--data-dir", data)
    other = tmp_path / "other"
    assert weft("restore", tmp_path / "backup", "--data-dir", other).status == 0
    again = weft("restore", tmp_path / "backup", "--data-dir", other, "--json")
    assert (again.status, again.code) == (1, "backup.not_empty")


def test_no_backup_is_told(weft: Any, tmp_path: Path) -> None:
    for words in (("restore", tmp_path), ("backup", tmp_path, "--verify")):
        done = weft(*words, "--json")
        assert (done.status, done.code) == (1, "backup.not_found")


def test_no_database_is_told(weft: Any, tmp_path: Path) -> None:
    done = weft("backup", tmp_path / "backup", "--data-dir", tmp_path / "typo", "--json")
    assert (done.status, done.code) == (2, "database.not_migrated")
    assert not (tmp_path / "typo" / "weft.db").exists()
