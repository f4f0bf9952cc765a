"""What the functions that write promise, each as something to do and to be held against it.

When one returns, what it did is durable; and at each point on the way, the disk holds the old or
the new of what it replaces. `PROMISES` has one for each function with a sync of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from edge_agent import download, files
from shared.errors import NoSpace
from tests.faults.images import Image, Tree
from tests.faults.interrupting import NEW, OLD, Interrupted, Killed, Mutate, record, states
from tests.faults.nodes import DEATH
from tests.faults.stage import Broken, using
from tests.faults.toggling import toggle


def check_durable(tree: Tree) -> None:
    for loss in tree.losses():
        if tree.image(loss) != tree.image(DEATH):
            raise Broken(f"not durable: {loss}")


def check_whole(tree: Tree, path: str, allowed: tuple[object, ...]) -> None:
    for loss in (DEATH, *tree.losses()):
        found = content(tree.image(loss), path)
        if found not in allowed:
            raise Broken(f"{path} is neither old nor new: {loss}")


def content(image: Image, path: str) -> object:
    """Of a file, the destination of a link, None for a directory, False where there is nothing."""
    node = image.get(Path(path), False)
    return node[0] if isinstance(node, tuple) else node


def replaced(root: Path, mutate: Mutate, act: Callable[[], None], old: object, new: object) -> None:
    """Make `target` another, whole at each instant."""
    tree = None
    for tree in record(root, act, mutate):
        check_whole(tree, "target", (old, new))
    assert tree is not None
    assert content(tree.image(), "target") == new
    check_durable(tree)


def replacing(root: Path, mutate: Mutate) -> None:
    target, other = root / "target", root / "other"
    other.write_bytes(OLD)
    replaced(root, mutate, lambda: files.write(target, NEW), False, NEW)
    replaced(root, mutate, lambda: files.copy(other, target), NEW, OLD)


def link(root: Path, mutate: Mutate) -> None:
    replaced(root, mutate, lambda: files.link(root / "target", "one"), False, "one")
    replaced(root, mutate, lambda: files.link(root / "target", "other"), "one", "other")


def remove(root: Path, mutate: Mutate) -> None:
    """Also where an attempt before could not be made durable."""
    target = root / "target"
    target.write_bytes(OLD)
    replaced(root, mutate, lambda: files.remove(target), OLD, False)
    target.write_bytes(OLD)

    def again() -> None:
        with contextlib.suppress(NoSpace):
            files.remove(target)
        files.remove(target)

    *_, tree = record(root, again, mutate, failing=1)
    check_durable(tree)


def after_a_kill(
    root: Path, mutate: Mutate, first: Callable[[Path], None], then: Callable[[Path], None]
) -> None:
    """What `first` did before it was killed, after any operation, is durable after `then`."""
    number, is_killed = 0, True
    while is_killed:
        number += 1
        place = root / str(number) / "place"
        place.mkdir(parents=True)
        before = Tree.load(place.parent)
        with using(disk := Interrupted(place.parent, killed=number)):
            is_killed = _dies(first, place)
            disk.killed = None
            then(place)
        *_, tree = states(before, mutate(disk.noted))
        check_durable(tree)


def _dies(act: Callable[[Path], None], place: Path) -> bool:
    try:
        act(place)
    except Killed:
        return True
    return False


def clean(root: Path, mutate: Mutate) -> None:
    def first(place: Path) -> None:
        files.write(place / "file", NEW)
        files.link(place / "link", "file")
        files.remove(place / "file")

    after_a_kill(root, mutate, first, files.clean)


def make_directory(root: Path, mutate: Mutate) -> None:
    def make(place: Path) -> None:
        files.make_directory(place / "a" / "b")

    after_a_kill(root, mutate, make, make)


def growing(root: Path, mutate: Mutate) -> None:
    """What was there stays, and what is added is durable at the end, even after an error."""
    (root / "target").write_bytes(OLD)
    for name, before in (("target", OLD), ("made", b"")):
        tree = None
        for tree in record(root, lambda at=root / name: _grow(at), mutate):  # type: ignore[misc]
            for loss in tree.losses():
                found = content(tree.image(loss), name) or b""
                if not isinstance(found, bytes) or not found.startswith(before):
                    raise Broken(f"what was there is lost: {loss}")
        assert tree is not None
        assert content(tree.image(), name) == before + NEW
        check_durable(tree)


def _grow(path: Path) -> None:
    with contextlib.suppress(ValueError), files.growing(path) as file:
        file.seek(0, 2)
        file.write(NEW)
        raise ValueError


def append(root: Path, mutate: Mutate) -> None:
    """A download loses no more than what may be written between two syncs."""
    piece, before = b"p" * 100, download.SYNC_BYTES
    download.SYNC_BYTES = 300

    def act() -> None:
        with files.growing(root / "target") as file:
            unsynced = 0
            for _ in range(12):
                unsynced = download._append(file, piece, unsynced)

    try:
        for tree in record(root, act, mutate):
            there = content(tree.image(), "target") or b""
            for loss in tree.losses():
                found = content(tree.image(loss), "target") or b""
                assert isinstance(there, bytes)
                assert isinstance(found, bytes)
                if len(there) - len(found.rstrip(b"\0")) > download.SYNC_BYTES + len(piece):
                    raise Broken(f"{len(there)} bytes had come, {len(found)} are left: {loss}")
    finally:
        download.SYNC_BYTES = before


def sync(root: Path, mutate: Mutate) -> None:
    """What was patched before it is durable."""
    (root / "target").write_bytes(OLD)

    def act() -> None:
        with files.patching(root / "target") as file:
            file.write(NEW)
            files.sync(file)

    *_, tree = record(root, act, mutate)
    assert content(tree.image(), "target") == NEW
    check_durable(tree)


#: By the function that asks for the syncs.
PROMISES: dict[str, Callable[[Path, Mutate], None]] = {
    "replacing": replacing,
    "link": link,
    "remove": remove,
    "clean": clean,
    "make_directory": make_directory,
    "growing": growing,
    "sync": sync,
    "_append": append,
    "_put_back": toggle,
    "_save": toggle,
    "_turn": toggle,
}
