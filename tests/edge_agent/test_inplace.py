"""Mode `inplace`: one weights file, changed in place, and an undo file until the commit."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent import files
from edge_agent.config import load_config
from edge_agent.errors import AgentError
from edge_agent.heavy.inline import Inline
from edge_agent.journal import load_journal
from server.packaging.encode import build_package
from shared.errors import BadConfig
from shared.weights import WeightsReader, write_weights
from tests.edge_agent.plane import Shelf

MODEL = "digits"
RUNTIME = {"kind": "file", "holds_copy": True}


@pytest.fixture
def device(bench: Any, plane: Any, shelf: Any) -> Any:
    """A device in the field with version 1 in its one file."""
    bench.settings["models"][MODEL] = {
        "initial": str(shelf.weights[1]),
        "storage": "inplace",
        "runtime": RUNTIME,
    }
    assert bench.round() == []
    return bench


def held(bench: Any) -> list[str]:
    return sorted(path.name for path in (bench.folder / "slots").iterdir())


def test_an_update_changes_the_one_file(device: Any, plane: Any, shelf: Any) -> None:
    before = (device.folder / "slots" / "a.safetensors").stat().st_ino
    plane.offer(shelf, shelf.wanted(2, "xor-12", 2))
    assert device.round() == []
    assert (device.in_use(), device.leftovers()) == (shelf.digests[2], set())
    assert held(device) == ["a.safetensors"]
    assert (device.folder / "slots" / "a.safetensors").stat().st_ino == before
    (report,) = plane.reports
    assert (report.result, report.slots) == ("committed", [shelf.digests[2]])
    told = plane.enrolments[-1].capabilities
    assert (told.chain, told.in_place) == (1, [MODEL])


def test_the_first_weights_are_written_as_ever(bench: Any, plane: Any, shelf: Any) -> None:
    bench.settings["models"][MODEL] = {"storage": "inplace", "runtime": RUNTIME}
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    assert bench.round() == []
    assert (bench.in_use(), held(bench)) == (shelf.digests[1], ["a.safetensors"])


def test_a_full_package_goes_over_what_is_there(device: Any, plane: Any, shelf: Any) -> None:
    plane.offer(shelf, shelf.wanted(2, "full-2", 2))
    assert device.round() == []
    assert (device.in_use(), held(device)) == (shelf.digests[2], ["a.safetensors"])


def test_weights_that_are_not_accepted_are_undone_exactly(
    device: Any, plane: Any, shelf: Any
) -> None:
    device.settings["models"][MODEL]["health_command"] = ["false"]
    before = (device.folder / "slots" / "a.safetensors").read_bytes()
    plane.offer(shelf, shelf.wanted(2, "xor-12", 2))
    assert device.round() == ["health.failed"]
    assert (device.in_use(), device.leftovers()) == (shelf.digests[1], set())
    assert (device.folder / "slots" / "a.safetensors").read_bytes() == before
    (report,) = plane.reports
    assert (report.result, report.weights_digest) == ("failed_rolled_back", shelf.digests[1])
    assert report.slots == [shelf.digests[1]]


def test_the_result_is_checked_before_a_byte_of_what_is_in_use_is_touched(
    device: Any, plane: Any, shelf: Any, tmp_path: Path
) -> None:
    """A package of which header and offer promise other weights than it gives."""
    lying = tmp_path / "lying"
    good = shelf.packages["xor-12"].path.read_bytes()
    promised, lie = bytes.fromhex(shelf.digests[2]), bytes.fromhex(shelf.digests[3])
    assert promised in good
    lying.write_bytes(good.replace(promised, lie))
    sha256 = hashlib.sha256(lying.read_bytes()).hexdigest()
    wanted = shelf.wanted(3, "xor-12", 2)
    offer = wanted.package.model_copy(
        update={"sha256": sha256, "url": f"/device/v1/packages/{sha256}"}
    )
    plane.offer(shelf, wanted.model_copy(update={"package": offer}))
    plane.files[sha256] = lying.read_bytes()
    slot = device.folder / "slots" / "a.safetensors"
    touched = slot.stat().st_mtime_ns
    assert device.round() == ["result.mismatch"]
    assert slot.stat().st_mtime_ns == touched
    assert (device.in_use(), device.leftovers()) == (shelf.digests[1], set())
    assert plane.reports[-1].result == "failed_no_change"
    assert plane.reports[-1].tensor_digests


def test_weights_of_another_shape_need_two_slots(
    device: Any, plane: Any, shelf: Any, tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    write_weights(other, {"alone": ("F32", np.ones((3, 3), "f4"))})
    built = build_package(None, other, "full", {}, tmp_path / "built", MODEL)
    with WeightsReader(other) as reader:
        digest = reader.digest().hex()
    changed = Shelf({9: other}, {9: digest}, {"full-9": built})
    plane.offer(changed, changed.wanted(9, "full-9", 2))
    assert device.round() == ["agent.needs_ab"]
    assert (device.in_use(), device.leftovers()) == (shelf.digests[1], set())
    assert plane.reports[-1].result == "failed_no_change"


def test_chains_are_refused(device: Any, plane: Any, shelf: Any) -> None:
    offers = [shelf.wanted(3, name).package for name in ("xor-12", "xor-23")]
    wanted = shelf.wanted(3, None, 2).model_copy(update={"chain": offers})
    plane.offer(shelf, wanted)
    assert device.round() == ["agent.broken_chain"]
    assert plane.asked("/device/v1/packages") == []


def test_without_space_nothing_is_touched(
    device: Any, plane: Any, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.offer(shelf, shelf.wanted(2, "xor-12", 2))
    with monkeypatch.context() as full_disk:
        full_disk.setattr(files, "free_bytes", lambda _directory: 9 << 20)
        assert device.round() == ["storage.no_space"]
    assert device.in_use() == shelf.digests[1]
    assert [r.state for r in plane.reports] == ["deferred"]
    assert device.round() == []
    assert device.in_use() == shelf.digests[2]


def test_there_is_nothing_to_go_back_to_once_it_is_committed(
    device: Any, plane: Any, shelf: Any
) -> None:
    plane.offer(shelf, shelf.wanted(2, "xor-12", 2))
    device.round()
    with device.running() as agent, pytest.raises(AgentError, match="only until an update"):
        agent.go_back(MODEL)


@pytest.mark.parametrize("accepted", [True, False])
def test_programs_never_find_mixed_weights(
    device: Any, plane: Any, shelf: Any, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the file is turned there is no link to it; before and after, it is whole."""
    found = []
    toggle = Inline.toggle

    def look(self: Inline, weights: Path, undo: Path, to: Any) -> None:
        found.append(device.in_use())
        toggle(self, weights, undo, to)
        found.append(device.in_use())

    monkeypatch.setattr(Inline, "toggle", look)
    device.settings["models"][MODEL]["health_command"] = ["true" if accepted else "false"]
    plane.offer(shelf, shelf.wanted(2, "xor-12", 2))
    device.round()
    assert found == [None, None] * (1 if accepted else 2)


# Kills itself around one task of the child, or at one point of the journal.
KILLER = """
import os, signal, sys
from edge_agent import cli
from edge_agent.agent import model
from edge_agent.heavy.child import Child

what, when = sys.argv[1:3]

def dying(do, is_meant):
    def instead(*arguments):
        if when == "before" and is_meant(*arguments):
            os.kill(os.getpid(), signal.SIGKILL)
        done = do(*arguments)
        if when == "after" and is_meant(*arguments):
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    return instead

Child.toggle = dying(Child.toggle, lambda child, weights, undo, to: to == what)
Child.write_undo = dying(Child.write_undo, lambda *_: what == "undo")
model.persist_journal = dying(model.persist_journal, lambda path, journal: journal.state == what)
sys.exit(cli.main(sys.argv[3:]))
"""


def killed(bench: Any, what: str, when: str) -> int:
    command = [sys.executable, "-c", KILLER, what, when, "once"]
    return subprocess.run(command, env=bench.environment, capture_output=True).returncode


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["undo", "staged", "swapping", "new", "verifying", "committed"])
def test_killed_anywhere_it_goes_on(
    device: Any, plane: Any, shelf: Any, what: str, when: str
) -> None:
    plane.offer(shelf, shelf.wanted(2, "xor-12", 2))
    assert killed(device, what, when) == -signal.SIGKILL
    assert device.in_use() in (shelf.digests[1], None, shelf.digests[2])
    assert device.round() == []
    assert (device.in_use(), device.leftovers()) == (shelf.digests[2], set())
    assert [(r.counter, r.result) for r in plane.reports] == [(1, "committed")]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["rolled_back", "old"])
def test_killed_on_the_way_back_it_ends_on_the_old_weights(
    device: Any, plane: Any, shelf: Any, what: str, when: str
) -> None:
    device.settings["models"][MODEL]["health_command"] = ["false"]
    plane.offer(shelf, shelf.wanted(2, "xor-12", 2))
    assert killed(device, what, when) == -signal.SIGKILL
    device.round()
    assert (device.in_use(), device.leftovers()) == (shelf.digests[1], set())
    assert [r.result for r in plane.reports] == ["failed_rolled_back"]


def test_a_file_that_is_neither_old_nor_new_is_not_to_be_found(
    device: Any, plane: Any, shelf: Any
) -> None:
    plane.offer(shelf, shelf.wanted(2, "xor-12", 2))
    assert killed(device, "new", "before") == -signal.SIGKILL
    slot = device.folder / "slots" / "a.safetensors"
    slot.write_bytes(slot.read_bytes()[:-40] + bytes(40))  # not ours: a failing disk
    assert device.round() == ["agent.slot_damaged"]
    assert (device.in_use(), device.leftovers()) == (None, set())
    (report,) = plane.reports
    assert (report.result, report.slots) == ("failed_unrecovered", [])
    plane.offer(shelf, shelf.wanted(2, "full-2", 3))
    assert device.round() == []
    assert (device.in_use(), held(device)) == (shelf.digests[2], ["a.safetensors"])


def test_from_two_slots_to_one_file_and_back(bench: Any, plane: Any, shelf: Any) -> None:
    for version, package in ((1, "full-1"), (2, "xor-12")):
        plane.offer(shelf, shelf.wanted(version, package, version))
        assert bench.round() == []
    assert held(bench) == ["a.safetensors", "b.safetensors"]
    bench.settings["models"][MODEL] = {"storage": "inplace", "runtime": RUNTIME}
    plane.offer(shelf, shelf.wanted(3, "xor-23", 3))
    assert bench.round() == []
    assert (bench.in_use(), held(bench)) == (shelf.digests[3], ["b.safetensors"])
    assert plane.reports[-1].slots == [shelf.digests[3]]
    bench.settings["models"][MODEL] = {}
    plane.offer(shelf, shelf.wanted(1, "full-1", 4))
    assert bench.round() == []
    assert (bench.in_use(), held(bench)) == (shelf.digests[1], ["a.safetensors", "b.safetensors"])


def test_the_first_update_may_start_from_the_slot_of_the_other_mode(
    bench: Any, plane: Any, shelf: Any
) -> None:
    """What the server was told of may be offered as a base; the weights in use stay meanwhile."""
    for version, package in ((1, "full-1"), (2, "xor-12"), (1, None)):
        plane.offer(shelf, shelf.wanted(version, package, plane.generation))
        assert bench.round() == []
    bench.settings["models"][MODEL] = {"storage": "inplace", "runtime": RUNTIME}
    plane.offer(shelf, shelf.wanted(3, "xor-23", 9))
    assert bench.round() == []
    assert (bench.in_use(), bench.leftovers()) == (shelf.digests[3], set())
    assert held(bench) == ["b.safetensors"]
    assert plane.reports[-1].slots == [shelf.digests[3]]


def test_such_an_update_needs_the_space_of_a_whole_file(device: Any) -> None:
    with device.running() as agent:
        slots, large = agent.updates[MODEL].slots, 1 << 40
        assert slots.needed([large], "b", "b") == large
        assert slots.needed([large], "a", "a") < large


def test_an_update_ends_in_the_mode_in_which_it_began(device: Any, plane: Any, shelf: Any) -> None:
    plane.offer(shelf, shelf.wanted(2, "xor-12", 2))
    assert killed(device, "new", "before") == -signal.SIGKILL
    device.settings["models"][MODEL] = {}
    assert device.round() == []
    assert (device.in_use(), device.leftovers()) == (shelf.digests[2], set())
    journal = load_journal(device.folder / "journal.json")
    assert journal is not None
    assert list(journal.slots) == ["a"]


def test_only_for_programs_that_hold_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    good = 'server = "https://x"\n[models.digits]\nstorage = "inplace"\n'
    path.write_text(good)
    with pytest.raises(BadConfig, match="holds a copy"):
        load_config(path, {})
    path.write_text(f"{good}[models.digits.runtime]\nkind = 'program'\nsocket = '/run/x'\n")
    assert load_config(path, {}).models[MODEL].storage == "inplace"


def test_a_damaged_undo_file_costs_the_update_and_not_the_weights(
    device: Any, plane: Any, shelf: Any
) -> None:
    plane.offer(shelf, shelf.wanted(2, "xor-12", 2))
    assert killed(device, "swapping", "after") == -signal.SIGKILL
    undo = device.folder / "undo"
    undo.write_bytes(undo.read_bytes()[:-1] + b"x")
    assert device.round() == ["agent.slot_damaged"]
    assert (device.in_use(), device.leftovers()) == (shelf.digests[1], set())
    (report,) = plane.reports
    assert (report.result, report.slots) == ("failed_rolled_back", [shelf.digests[1]])


@pytest.mark.parametrize("when", ["before", "after"])
def test_without_a_journal_a_change_that_was_under_way_is_undone(
    device: Any, plane: Any, shelf: Any, when: str
) -> None:
    """What the file holds was never judged, and may be neither old nor new."""
    plane.offer(shelf, shelf.wanted(2, "xor-12", 2))
    assert killed(device, "new", when) == -signal.SIGKILL
    (device.folder / "journal.json").write_text("{")
    plane.offer(shelf, None)
    assert device.round() == []
    assert (device.in_use(), device.leftovers()) == (shelf.digests[1], set())


def test_without_a_journal_weights_that_are_not_whole_are_not_put_into_use(
    device: Any, plane: Any, shelf: Any
) -> None:
    plane.offer(shelf, shelf.wanted(2, "xor-12", 2))
    assert killed(device, "new", "after") == -signal.SIGKILL
    (device.folder / "journal.json").write_text("{")
    slot = device.folder / "slots" / "a.safetensors"
    slot.write_bytes(slot.read_bytes()[:-40] + bytes(40))
    plane.offer(shelf, None)
    assert device.round() == []
    assert (device.in_use(), device.leftovers()) == (None, set())


def test_going_back_by_hand_to_a_slot_of_the_other_mode_leaves_one_file(
    bench: Any, plane: Any, shelf: Any
) -> None:
    for version, package in ((1, "full-1"), (2, "xor-12")):
        plane.offer(shelf, shelf.wanted(version, package, version))
        assert bench.round() == []
    bench.settings["models"][MODEL] = {"storage": "inplace", "runtime": RUNTIME}
    with bench.running() as agent:
        assert agent.go_back(MODEL) == []
    assert (bench.in_use(), held(bench)) == (shelf.digests[1], ["a.safetensors"])
    report = plane.reports[-1]
    assert (report.assignment, report.result) == (2, "failed_rolled_back")
    assert report.slots == [shelf.digests[1]]
