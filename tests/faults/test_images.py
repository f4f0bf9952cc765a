"""The model of crashes itself, against sequences whose outcome is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent import files
from tests.faults.images import Image, Tree, build, halved
from tests.faults.nodes import CONTENTS, DEATH, Loss
from tests.faults.recording import (
    Fsync,
    FsyncDirectory,
    Mkdir,
    Open,
    Operation,
    RecordingDisk,
    Rename,
    Symlink,
    Truncate,
    Unlink,
    Write,
)

TOP, OLD, NEW, BESIDE = Path(), b"old", b"newer", Path("beside")
TARGET = Path("target")
REPLACED: list[Operation] = [
    Open(BESIDE, 1, 0o644),
    Write(1, 0, NEW),
    Fsync(1),
    Rename(BESIDE, TARGET),
    FsyncDirectory(TOP),
]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "target").write_bytes(OLD)
    return Tree.load(tmp_path / "disk")


def contents(image: Image) -> dict[str, bytes]:
    return {str(path): node[0] for path, node in image.items() if isinstance(node, tuple)}


def outcomes(tree: Tree) -> list[dict[str, bytes]]:
    """What different power losses leave, each once."""
    found = []
    for loss in tree.losses():
        left = contents(tree.image(loss))
        if left not in found:
            found.append(left)
    return found


def test_a_process_that_dies_loses_nothing(tree: Tree) -> None:
    tree.go(REPLACED[:2])
    assert contents(tree.image(DEATH)) == {"target": OLD, "beside": NEW}


def test_a_file_replaced_in_good_order_is_old_or_new(tree: Tree) -> None:
    for length in range(len(REPLACED) + 1):
        for left in outcomes(tree.copy().go(REPLACED[:length])):
            assert left["target"] in (OLD, NEW)
    assert outcomes(tree.go(REPLACED)) == []


def test_a_file_renamed_before_its_sync_may_be_empty_torn_or_blank(tree: Tree) -> None:
    tree.go([step for step in REPLACED if not isinstance(step, Fsync)])
    assert [left["target"] for left in outcomes(tree)] == [b"", NEW[:2], NEW, bytes(5)]


def test_a_rename_is_undone_unless_the_directory_was_synced(tree: Tree) -> None:
    tree.go(REPLACED[:4])
    assert outcomes(tree) == [
        {"target": OLD},
        {"target": OLD, "beside": NEW},  # created, not renamed
        {"target": NEW},  # ... each of the two changes alone
    ]


@pytest.mark.parametrize(
    ("change", "lost", "kept"),
    [
        (Unlink(TARGET), {TARGET: (OLD, 0o644)}, {}),
        (Symlink(Path("link"), "target"), {}, {Path("link"): "target"}),
        (Mkdir(Path("folder")), {}, {Path("folder"): None}),
    ],
)
def test_names_are_lost_or_kept_as_a_whole(
    tree: Tree, change: Operation, lost: Image, kept: Image
) -> None:
    rest = {} if isinstance(change, Unlink) else tree.image()
    tree.go([change])
    assert [tree.image(loss) for loss in tree.losses()] == [rest | lost]
    assert tree.image(DEATH) == rest | kept
    tree.go([FsyncDirectory(TOP)])
    assert list(tree.losses()) == []


def test_a_directory_that_is_lost_takes_all_with_it(tree: Tree) -> None:
    inner = Path("folder") / "file"
    tree.go([Mkdir(Path("folder")), Open(inner, 1, 0o600), Write(1, 0, NEW), Fsync(1)])
    tree.go([FsyncDirectory(Path("folder"))])
    assert outcomes(tree) == [{"target": OLD}]
    assert tree.go([FsyncDirectory(TOP)]).image()[inner] == (NEW, 0o600)
    assert outcomes(tree) == []


def big(letter: str, sectors: int) -> bytes:
    return letter.encode() * (512 * sectors)


def test_bytes_changed_in_place_are_torn_at_sectors(tree: Tree) -> None:
    tree.go([Open(TARGET, 1, 0o644), Write(1, 0, big("a", 3)), Fsync(1)])
    tree.go([Write(1, 0, big("b", 4)), Truncate(1, 512 * 4 + 1)])
    torn = {kept: tree.image(Loss("all", kept))[TARGET] for kept in CONTENTS}
    data = {kept: node[0] for kept, node in torn.items() if isinstance(node, tuple)}
    assert data == {
        "none": big("a", 3),
        "prefix": big("b", 2) + big("a", 1),
        "even sectors": big("b", 1) + big("a", 1) + big("b", 1) + big("\0", 1) + b"\0",
        "odd sectors": big("a", 1) + big("b", 1) + big("a", 1) + big("b", 1) + b"\0",
        "zeros": big("\0", 4) + b"\0",
        "all": big("b", 4) + b"\0",
    }


def test_of_two_files_either_may_reach_the_disk_before_the_other(tree: Tree) -> None:
    other = Path("other")
    tree.go([Open(other, 1, 0o644), Fsync(1), FsyncDirectory(TOP)])
    tree.go([Write(1, 0, NEW), Open(TARGET, 2, 0o644), Write(2, 0, NEW)])
    left = outcomes(tree)
    assert {"target": OLD, "other": NEW} in left
    assert {"target": NEW + OLD[5:], "other": b""} in left


def test_half_of_a_write_is_a_point_too() -> None:
    assert halved(Write(1, 10, b"abcde")) == Write(1, 10, b"ab")
    assert [halved(step) for step in (Write(1, 0, b"a"), Fsync(1), Unlink(TARGET))] == [None] * 3


def test_a_copy_is_another_disk(tree: Tree) -> None:
    tree.go([Open(TARGET, 1, 0o644)])
    other = tree.copy().go([Write(1, 0, NEW)])
    assert contents(tree.image()) == {"target": OLD}
    assert contents(other.image()) == {"target": NEW}


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Tree]:
    """Records what is done below `disk`; gives the state that the recording leads to."""
    root = tmp_path / "disk"
    root.mkdir()
    before, disk = Tree.load(root), RecordingDisk(root)
    monkeypatch.setattr(files, "disk", disk)
    return lambda: before.copy().go(noted.operation for noted in disk.noted)


def test_what_is_recorded_is_what_was_done(recorded: Callable[[], Tree], tmp_path: Path) -> None:
    root = tmp_path / "disk"
    files.make_directory(root / "a" / "b")
    files.write(root / "a" / "file", b"x" * 200_000, files.PRIVATE)
    with files.growing(root / "a" / "b" / "download") as file:
        file.write(b"0123456789")
        file.flush()
        file.seek(5)
        file.write(b"-")
        file.truncate(8)
    with files.patching(root / "a" / "file") as file:
        file.seek(70_000)
        file.write(b"patched")
        files.sync(file)
    files.link(root / "link", "a/file")
    files.link(root / "link", "a/b")
    files.write(root / "gone", b"")
    files.remove(root / "gone")
    files.write(tmp_path / "elsewhere", b"not noted")
    assert recorded().image() == Tree.load(root).image()
    assert list(recorded().losses()) == []


def test_an_image_is_built_as_it_says(tree: Tree, tmp_path: Path) -> None:
    tree.go([Mkdir(Path("d")), Open(Path("d/f"), 1, 0o600), Write(1, 0, NEW)])
    tree.go([Symlink(Path("l"), "d/f")])
    built = tmp_path / "built"
    built.mkdir()
    build(tree.image(), built)
    assert Tree.load(built).image() == tree.image()
    assert (built / "l").readlink() == Path("d/f")
