"""Whatever writes keeps its promise at each point; and each single sync is needed for one."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent import files, undo
from tests.faults.mutants import Mutation, removed, sync_sites, too_early, too_late
from tests.faults.promises import PROMISES
from tests.faults.recording import (
    Noted,
    RecordingDisk,
    Site,
)
from tests.faults.stage import Broken, using

SITES = list(sync_sites())


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo, "BLOCK_FRAMES", 2)


@pytest.fixture
def place(tmp_path: Path) -> Callable[[], Path]:
    """Makes empty directories."""

    def make() -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        return folder

    return make


@pytest.mark.parametrize("name", PROMISES)
def test_it_keeps_its_promise_at_each_point(name: str, place: Callable[[], Path]) -> None:
    PROMISES[name](place(), lambda noted: noted)


def mutated(site: Site, how: Mutation, place: Callable[[], Path]) -> bool | None:
    """Whether the promise is broken by the mutant; None where the mutant is no other sequence."""
    differs = False

    def mutate(noted: list[Noted]) -> list[Noted]:
        nonlocal differs
        mutant = how(noted, site)
        differs |= [each.operation for each in mutant] != [each.operation for each in noted]
        return mutant

    try:
        PROMISES[site.function](place(), mutate)
    except Broken:
        return True
    return False if differs else None


def named(site: Site) -> str:
    return f"{site.module}:{site.line} {site.function}"


@pytest.mark.parametrize("site", SITES, ids=named)
def test_without_this_sync_a_promise_is_broken(site: Site, place: Callable[[], Path]) -> None:
    assert mutated(site, removed, place) is True


@pytest.mark.parametrize("how", [too_late, too_early])
@pytest.mark.parametrize("site", SITES, ids=named)
def test_with_this_sync_out_of_order_a_promise_is_broken(
    site: Site, how: Mutation, place: Callable[[], Path]
) -> None:
    assert mutated(site, how, place) is not False


def test_the_syncs_of_the_agent_are_found_in_its_source() -> None:
    found = {(site.module, site.function) for site in SITES}
    assert found >= {("files.py", "replacing"), ("files.py", "link"), ("undo.py", "_turn")}
    assert {site.function for site in SITES} == PROMISES.keys()
    assert len(SITES) >= 14


def test_mutants_are_other_sequences(tmp_path: Path) -> None:
    def kinds(noted: list[Noted]) -> list[str]:
        return [type(each.operation).__name__ for each in noted]

    with using(disk := RecordingDisk(tmp_path)):
        files.write(tmp_path / "file", b"data")
    names = ["Open", "Write", "Fsync", "Rename", "FsyncDirectory"]
    assert kinds(disk.noted) == names
    of_file, of_folder = disk.noted[2].sites[1], disk.noted[4].sites[0]
    assert {of_file, of_folder} <= set(SITES)
    assert kinds(removed(disk.noted, of_file)) == ["Open", "Write", "Rename", "FsyncDirectory"]
    assert kinds(too_late(disk.noted, of_file)) == [
        *("Open", "Write", "Rename", "Fsync", "FsyncDirectory"),
    ]
    assert kinds(too_early(disk.noted, of_folder)) == [
        *("Open", "Write", "Fsync", "FsyncDirectory", "Rename"),
    ]


def test_the_disk_really_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one thing that no recording shows."""
    synced: list[bool] = []
    really = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        really(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    files.write(tmp_path / "file", b"data")
    assert synced == [False, True]
