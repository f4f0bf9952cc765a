"""Several packages in one update: only what the last one gives is ever put into use."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_agent import files
from edge_agent.journal import load_journal
from edge_agent.slots.two import peak_bytes
from shared.wire import DesiredModel

MODEL = "digits"

# Kills itself when one package of the chain has been applied, before or after that is noted.
KILLER = """
import os, signal, sys
from edge_agent import cli
from edge_agent.agent import model

persist = model.persist_journal

def persist_and_die(path, journal):
    if journal.applied == 1 and sys.argv[1] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    persist(path, journal)
    if journal.applied == 1 and sys.argv[1] == "after":
        os.kill(os.getpid(), signal.SIGKILL)

model.persist_journal = persist_and_die
sys.exit(cli.main(sys.argv[2:]))
"""


def chained(shelf: Any, version: int, *packages: str, assignment: int = 1) -> DesiredModel:
    """The version by these packages, one after the other."""
    offers = [shelf.wanted(version, name).package for name in packages]
    wanted = shelf.wanted(version, None, assignment)
    return DesiredModel.model_validate({**wanted.model_dump(), "chain": offers})


@pytest.fixture
def in_the_field(bench: Any, plane: Any, shelf: Any) -> Any:
    """A device with version 1, to which version 3 is offered in two steps."""
    bench.settings["models"][MODEL]["initial"] = str(shelf.weights[1])
    assert bench.round() == []
    plane.offer(shelf, chained(shelf, 3, "xor-12", "xor-23"))
    plane.requests.clear()
    return bench


def kill_in_the_middle(bench: Any, when: str) -> None:
    command = [sys.executable, "-c", KILLER, when, "once"]
    killed = subprocess.run(command, env=bench.environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr


def package_file(bench: Any, shelf: Any, name: str) -> Path:
    return Path(bench.folder / f"package-{shelf.packages[name].sha256}.weft")


def test_each_package_starts_from_what_the_one_before_it_gives(
    in_the_field: Any, plane: Any, shelf: Any
) -> None:
    assert in_the_field.round() == []
    assert in_the_field.in_use() == shelf.digests[3]
    assert in_the_field.leftovers() == set()
    report = plane.reports[-1]
    assert (report.result, report.version) == ("committed", 3)
    assert sorted(report.slots) == sorted([shelf.digests[1], shelf.digests[3]])
    assert plane.enrolments[-1].capabilities.chain == 8
    assert len(plane.asked("/device/v1/packages")) == 2


def test_a_chain_may_begin_with_nothing(bench: Any, plane: Any, shelf: Any) -> None:
    plane.offer(shelf, chained(shelf, 3, "full-1", "xor-12", "xor-23"))
    assert bench.round() == []
    assert (bench.in_use(), bench.leftovers()) == (shelf.digests[3], set())


def test_a_chain_may_begin_in_the_slot_that_it_will_replace(
    bench: Any, plane: Any, shelf: Any
) -> None:
    for version, package, assignment in ((1, "full-1", 1), (2, "full-2", 2)):
        plane.offer(shelf, shelf.wanted(version, package, assignment))
        assert bench.round() == []
    plane.offer(shelf, chained(shelf, 3, "xor-12", "xor-23", assignment=3))
    assert bench.round() == []
    assert bench.in_use() == shelf.digests[3]
    assert sorted(plane.reports[-1].slots) == sorted([shelf.digests[2], shelf.digests[3]])


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_between_two_packages_it_goes_on(
    in_the_field: Any, plane: Any, shelf: Any, when: str
) -> None:
    kill_in_the_middle(in_the_field, when)
    assert in_the_field.in_use() == shelf.digests[1]
    assert "stage-0.safetensors" in in_the_field.leftovers()
    if when == "after":  # what is applied is not needed again
        package_file(in_the_field, shelf, "xor-12").unlink()
    assert in_the_field.round() == []
    assert (in_the_field.in_use(), in_the_field.leftovers()) == (shelf.digests[3], set())
    assert len(plane.asked("/device/v1/packages")) == 2
    assert [(r.counter, r.result) for r in plane.reports] == [(1, "committed")]


def test_a_result_on_the_way_that_was_damaged_is_made_again(
    in_the_field: Any, plane: Any, shelf: Any
) -> None:
    kill_in_the_middle(in_the_field, "after")
    stage = in_the_field.folder / "stage-0.safetensors"
    data = bytearray(stage.read_bytes())
    data[-1] ^= 1
    stage.write_bytes(bytes(data))
    assert in_the_field.round() == []
    assert (in_the_field.in_use(), in_the_field.leftovers()) == (shelf.digests[3], set())
    assert len(plane.asked("/device/v1/packages")) == 2


def test_another_offer_in_the_middle_leaves_nothing_behind(
    in_the_field: Any, plane: Any, shelf: Any
) -> None:
    kill_in_the_middle(in_the_field, "after")
    plane.offer(shelf, shelf.wanted(2, "xor-12", 2))
    assert in_the_field.round() == []
    assert (in_the_field.in_use(), in_the_field.leftovers()) == (shelf.digests[2], set())


def test_a_damaged_base_ends_the_update_before_anything_is_changed(
    in_the_field: Any, plane: Any, shelf: Any
) -> None:
    slot = in_the_field.folder / "slots" / "a.safetensors"
    good = slot.read_bytes()
    slot.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert in_the_field.round() == ["package.wrong_base"]
    assert plane.reports[-1].result == "failed_no_change"
    assert shelf.digests[1] not in plane.reports[-1].slots
    assert not (in_the_field.folder / "slots" / "b.safetensors").exists()
    assert in_the_field.leftovers() == set()


def test_a_device_without_the_base_downloads_nothing(bench: Any, plane: Any, shelf: Any) -> None:
    plane.offer(shelf, chained(shelf, 3, "xor-12", "xor-23"))
    assert bench.round() == ["agent.no_base"]
    assert plane.asked("/device/v1/packages") == []


@pytest.mark.parametrize(
    ("packages", "code"),
    [
        (("xor-12", "full-2"), "agent.broken_chain"),
        (("xor-12",) * 9, "agent.broken_chain"),
        (("xor-12", "xor-12"), "trust.wrong_listing"),
        (("xor-12", "xor-23", "xor-23"), "trust.wrong_listing"),
    ],
)
def test_packages_that_do_not_follow_one_another_are_refused(
    in_the_field: Any, plane: Any, shelf: Any, packages: tuple[str, ...], code: str
) -> None:
    plane.offer(shelf, chained(shelf, 3, *packages))
    assert in_the_field.round() == [code]
    assert in_the_field.in_use() == shelf.digests[1]
    assert plane.reports[-1].result == "failed_no_change"
    assert in_the_field.leftovers() == set()


def test_a_download_resumes_in_the_file_where_it_was_cut(
    in_the_field: Any, plane: Any, shelf: Any
) -> None:
    second = shelf.packages["xor-23"]
    data = second.path.read_bytes()
    here = f"/device/v1/packages/{second.sha256}"
    plane.faults = [lambda h: h.path == here and (h.package(data, 50), True)[1]]
    assert in_the_field.round() == ["server.unreachable"]
    journal = load_journal(in_the_field.folder / "journal.json")
    assert journal is not None
    assert journal.state == "downloading"
    assert in_the_field.round() == []
    assert in_the_field.in_use() == shelf.digests[3]
    assert plane.asked(here)[-1]["range"] == "bytes=50-"
    first = f"/device/v1/packages/{shelf.packages['xor-12'].sha256}"
    assert len(plane.asked(first)) == 1


def test_room_is_counted_for_two_results_at_a_time(
    in_the_field: Any, plane: Any, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = shelf.weights[1].stat().st_size
    packages = sum(shelf.packages[name].size for name in ("xor-12", "xor-23"))
    needed = 2 * weights + packages + (1 << 20)
    with monkeypatch.context() as small_disk:
        small_disk.setattr(files, "free_bytes", lambda _directory: needed - 1)
        assert in_the_field.round() == ["storage.no_space"]
        small_disk.setattr(files, "free_bytes", lambda _directory: needed)
        assert in_the_field.round() == []
    assert in_the_field.in_use() == shelf.digests[3]


def test_results_of_different_sizes_take_what_two_neighbours_take() -> None:
    assert [peak_bytes(sizes) for sizes in ([7], [7, 5], [1, 9, 2, 3])] == [7, 12, 11]
