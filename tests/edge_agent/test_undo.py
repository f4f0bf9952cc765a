"""Weights changed in place: cut anywhere, by a kill or by the power, they end wholly old or new."""

from __future__ import annotations

import contextlib
import itertools
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent import files, trust, undo
from edge_agent.errors import AgentError, WrongWeights
from edge_agent.reconstitute import write_undo
from edge_agent.undo import Side, WeightsFile, Writer, scratch_of, toggle
from server.packaging.encode import build_package
from shared.errors import NoSpace
from shared.weights import WeightsReader, write_weights

SECTOR = 8  # bytes that a disk writes as one; small, so that everything can be torn
FRONT = 16
BLOCK = 64


class Cut(BaseException):
    """The process or the power ends here."""


@dataclass
class Disk:
    """Two files as the kernel sees them, and as they are on the disk.

    A sector that was written since the last sync is on the disk or not. A sync that fails leaves it
    so for ever: the kernel does not try again.
    """

    cache: dict[Path, bytearray]
    dice: random.Random
    operations: int = 0
    until: int | None = None  # the operation at which everything ends
    failing: bool = False  # ... or only a sync fails
    forgetful: str | None = None  # the function whose syncs do nothing
    disk: dict[Path, bytearray] = field(default_factory=dict)
    dirty: dict[Path, set[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.disk = {path: bytearray(data) for path, data in self.cache.items()}
        self.dirty = {path: set() for path in self.cache}

    def write(self, path: Path, offset: int, data: bytes) -> None:
        is_last = self._step()
        end = offset + (self.dice.randrange(len(data) + 1) if is_last else len(data))
        self.cache[path][offset:end] = data[: end - offset]
        self.dirty[path] |= set(range(offset // SECTOR, -(-end // SECTOR)))
        if is_last:
            raise Cut

    def sync(self, path: Path) -> None:
        if self._step():
            if self.failing:
                self._settle(path, kept=0.5)
                raise NoSpace("unusable", "EIO")
            raise Cut
        if sys._getframe(2).f_code.co_name != self.forgetful:
            self._settle(path, kept=1.0)

    def lose_power(self, kept: float) -> None:
        """Each sector that was not synced is on the disk with this probability."""
        for path in self.cache:
            self._settle(path, kept)
            self.cache[path][:] = self.disk[path]

    def _step(self) -> bool:
        self.operations += 1
        return self.operations == self.until

    def _settle(self, path: Path, kept: float) -> None:
        for sector in sorted(self.dirty[path]):
            if self.dice.random() < kept:
                part = slice(sector * SECTOR, (sector + 1) * SECTOR)
                self.disk[path][part] = self.cache[path][part]
        self.dirty[path].clear()


class SimulatedFile:
    """What `files.patching` gives, on such a disk."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self.disk, self.path, self.at = disk, path, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset + (len(self.disk.cache[self.path]) if whence == 2 else 0)
        return self.at

    def read(self, size: int) -> bytes:
        data = bytes(self.disk.cache[self.path][self.at : self.at + size])
        self.at += len(data)
        return data

    def write(self, data: bytes) -> int:
        assert self.at + len(data) <= len(self.disk.cache[self.path])
        self.disk.write(self.path, self.at, data)
        self.at += len(data)
        return len(data)


@dataclass
class Case:
    """Old and new content of a weights file, and the undo file between them."""

    old: bytes
    new: bytes
    weights: Path
    undo: Path
    room: int

    def disk(self, seed: int = 0, content: bytes | None = None) -> Disk:
        cache = {
            self.weights: bytearray(content or self.old),
            scratch_of(self.undo): bytearray(self.room),
        }
        return Disk(cache, random.Random(seed))

    def toggle(self, disk: Disk, to: Side, until: int | None = None) -> bool:
        """Until the cut; whether it came to its end before."""
        disk.operations, disk.until = 0, until
        try:
            toggle(self.weights, self.undo, to)
        except (Cut, NoSpace):
            return False
        return True

    def ends(self, disk: Disk, to: Side) -> bool:
        """Whether a toggle that nothing cuts ends on what is wanted, on the disk too."""
        try:
            assert self.toggle(disk, to)
        except AgentError:
            return False
        disk.lose_power(kept=0.0)
        return disk.cache[self.weights] == (self.new if to == "new" else self.old)


def make_case(folder: Path, sizes: list[int], changed: list[bool], seed: int) -> Case:
    """Pieces of random bytes, the changed ones all different."""
    dice = random.Random(seed)
    folder.mkdir(exist_ok=True)
    weights, path = folder / "weights", folder / "undo"
    old = dice.randbytes(FRONT + sum(sizes))
    new = bytearray(old)
    weights.write_bytes(old)
    with weights.open("rb") as file, path.open("wb") as output:
        writer = Writer(output, WeightsFile.of(file, FRONT))
        at = FRONT
        for size, differs in zip(sizes, changed, strict=True):
            if differs:
                new[at : at + size] = bytes(
                    byte ^ dice.randrange(1, 256) for byte in old[at : at + size]
                )
            writer.add(
                at, 4 if size % 4 == 0 else 1, old[at : at + size], bytes(new[at : at + size])
            )
            at += size
        writer.close()
    undo.make_scratch(path, writer.changed)
    return Case(old, bytes(new), weights, path, scratch_of(path).stat().st_size)


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Callable[[Disk], None]:
    """Puts a simulated disk in the place of the real one, and makes blocks small."""
    monkeypatch.setattr(undo, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(undo, "BLOCK_FRAMES", 3)

    really_sync = files.sync

    def use(disk: Disk) -> None:
        @contextlib.contextmanager
        def patching(path: Path) -> Iterator[SimulatedFile]:
            yield SimulatedFile(disk, path)

        def sync(file: SimulatedFile | BinaryIO) -> None:
            if isinstance(file, SimulatedFile):
                disk.sync(file.path)
            else:
                really_sync(file)

        monkeypatch.setattr(files, "patching", patching)
        monkeypatch.setattr(files, "sync", sync)

    return use


SIZES = [12, 40, 4, 8, 60, 7, 64, 16, 24, 5]
CHANGED = [True, True, False, True, True, True, True, False, True, True]
SIDES: tuple[Side, Side] = ("old", "new")
#: How a run ends at its cut: killed, or without power; then how many unsynced sectors are kept.
ENDS = (None, 0.0, 0.5, 1.0)


@pytest.fixture
def case(tmp_path: Path, simulated: Callable[[Disk], None]) -> Case:
    return make_case(tmp_path, SIZES, CHANGED, 1)


def operations(case: Case, disk: Disk, to: Side) -> int:
    assert case.toggle(disk, to)
    return disk.operations


@pytest.mark.parametrize("to", SIDES)
@pytest.mark.parametrize("failing", [False, True])
def test_cut_at_each_operation_it_ends_on_either_side(
    case: Case, simulated: Callable[[Disk], None], to: Side, failing: bool
) -> None:
    start = case.old if to == "new" else case.new
    simulated(disk := case.disk(content=start))
    points = operations(case, disk, to)
    assert points > 20
    for until, end, then in itertools.product(range(1, points + 1), ENDS, SIDES):
        disk = case.disk(seed=until, content=start)
        disk.failing = failing
        simulated(disk)
        case.toggle(disk, to, until)
        if end is not None:
            disk.lose_power(end)
        disk.failing = False
        assert case.ends(disk, then), (until, end, then)


def storm(case: Case, disk: Disk) -> bool:
    """Several cuts of several kinds, one after the other; whether it then ends well."""
    dice = disk.dice
    for _ in range(dice.randrange(1, 5)):
        disk.failing = dice.random() < 0.2
        try:
            case.toggle(disk, dice.choice(SIDES), dice.randrange(1, 40))
        except AgentError:
            return False
        if (end := dice.choice(ENDS)) is not None:
            disk.lose_power(end)
    disk.failing = False
    return case.ends(disk, dice.choice(SIDES))


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    pieces=st.lists(st.tuples(st.integers(1, BLOCK), st.booleans()), max_size=12),
    seed=st.integers(0, 2**32),
)
def test_any_weights_survive_any_storm(
    tmp_path: Path, simulated: Callable[[Disk], None], pieces: list[tuple[int, bool]], seed: int
) -> None:
    sizes, changed = [size for size, _ in pieces], [differs for _, differs in pieces]
    case = make_case(tmp_path, sizes, changed, seed)
    for number in range(10):
        simulated(disk := case.disk(seed + number))
        assert storm(case, disk)


@pytest.mark.parametrize("function", ["_put_back", "_save", "_turn"])
def test_without_any_one_sync_a_storm_ends_badly(
    case: Case, simulated: Callable[[Disk], None], function: str
) -> None:
    def ends_well(seed: int) -> bool:
        disk = case.disk(seed)
        disk.forgetful = function
        simulated(disk)
        return storm(case, disk)

    assert not all(ends_well(seed) for seed in range(2000))


def test_what_is_as_wanted_is_not_written(case: Case, simulated: Callable[[Disk], None]) -> None:
    simulated(disk := case.disk())
    assert operations(case, disk, "old") == 0
    assert operations(case, disk, "new") > 20
    assert operations(case, disk, "new") == 0


def test_bytes_that_are_neither_are_damage_and_stay(
    case: Case, simulated: Callable[[Disk], None]
) -> None:
    disk = case.disk()
    disk.cache[case.weights][FRONT + 3] ^= 255
    before = bytes(disk.cache[case.weights])
    simulated(disk)
    with pytest.raises(AgentError) as refused:
        toggle(case.weights, case.undo, "new")
    assert refused.value.code == "agent.slot_damaged"
    assert disk.cache[case.weights] == before


# On the real disk.


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "longer", "another"])
def test_an_undo_file_that_is_not_whole_changes_nothing(case: Case, damage: str) -> None:
    content = bytearray(case.undo.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    damaged = {"cut": content[:-1], "empty": b"", "longer": content + b"x", "another": bytes(200)}
    case.undo.write_bytes(damaged.get(damage, content))
    with pytest.raises(AgentError) as refused:
        toggle(case.weights, case.undo, "new")
    assert refused.value.code == "agent.slot_damaged"
    assert case.weights.read_bytes() == case.old


@pytest.mark.parametrize("change", ["front", "size"])
def test_another_file_is_not_touched(case: Case, change: str) -> None:
    other = b"x" + case.old[1:] if change == "front" else case.old + b"x"
    case.weights.write_bytes(other)
    with pytest.raises(AgentError) as refused:
        toggle(case.weights, case.undo, "new")
    assert refused.value.code == "agent.slot_damaged"
    assert case.weights.read_bytes() == other


def test_there_and_back_on_the_real_disk(case: Case) -> None:
    for to, content in (("new", case.new), ("new", case.new), ("old", case.old)):
        toggle(case.weights, case.undo, to)
        assert case.weights.read_bytes() == content


def test_a_scratch_file_that_was_removed_is_made_anew(case: Case) -> None:
    scratch_of(case.undo).unlink()
    toggle(case.weights, case.undo, "new")
    assert case.weights.read_bytes() == case.new


def admitted(package: Path) -> Any:
    return trust.admit_local(package, 1 << 30)


METHODS: dict[str, dict[str, float]] = {
    "ka": {"rank": 2},
    "rm": {"proportion": 0.1},
    "sparse": {"step": 0.01},
    "direct": {},
    "xor": {},
    "full": {},
}


@pytest.mark.parametrize("method", METHODS)
def test_each_method_gives_the_same_weights_in_place(
    method: str, shelf: Any, tmp_path: Path
) -> None:
    package, weights, path = tmp_path / "package", tmp_path / "weights", tmp_path / "undo"
    built = build_package(
        shelf.weights[1], shelf.weights[3], method, METHODS[method], package, "digits"
    )
    weights.write_bytes(shelf.weights[1].read_bytes())
    with admitted(package) as opened:
        assert write_undo(opened, weights, path) == built.result_digest
    assert weights.read_bytes() == shelf.weights[1].read_bytes()
    toggle(weights, path, "new")
    with WeightsReader(weights) as reader:
        assert reader.digest().hex() == built.result_digest
    toggle(weights, path, "old")
    assert weights.read_bytes() == shelf.weights[1].read_bytes()


def test_other_shapes_need_two_slots(shelf: Any, tmp_path: Path) -> None:
    with WeightsReader(shelf.weights[1]) as reader:
        tensors = {name: (spec.dtype, reader.read(name)) for name, spec in reader.schema.items()}
    tensors["head.bias"] = ("F32", tensors["head.bias"][1][:5])
    target, package, path = tmp_path / "target", tmp_path / "package", tmp_path / "undo"
    write_weights(target, tensors)
    build_package(shelf.weights[1], target, "xor", {}, package, "digits")
    with admitted(package) as opened, pytest.raises(AgentError) as refused:
        write_undo(opened, shelf.weights[1], path)
    assert refused.value.code == "agent.needs_ab"
    assert not path.exists()


def test_a_wrong_result_leaves_no_undo_file(shelf: Any, tmp_path: Path) -> None:
    package, path = tmp_path / "package", tmp_path / "undo"
    build_package(shelf.weights[1], shelf.weights[2], "xor", {}, package, "digits")
    content = package.read_bytes()
    package.write_bytes(content.replace(bytes.fromhex(shelf.digests[2]), bytes(32)))
    with admitted(package) as opened, pytest.raises(WrongWeights) as refused:
        write_undo(opened, shelf.weights[1], path)
    with WeightsReader(shelf.weights[2]) as reader:
        digests = {name: digest.hex() for name, digest in reader.tensor_digests().items()}
    assert refused.value.tensor_digests == digests
    assert {found.name for found in tmp_path.iterdir()} == {"package"}


def test_space_is_left_to_others(
    shelf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = undo.RESERVE_BYTES + 300
    monkeypatch.setattr(files, "free_bytes", lambda _: free)
    path = tmp_path / "undo"
    with admitted(shelf.packages["full-2"].path) as opened, pytest.raises(NoSpace) as refused:
        write_undo(opened, shelf.weights[3], path)
    assert refused.value.code == "storage.no_space"
    assert list(tmp_path.iterdir()) == []
