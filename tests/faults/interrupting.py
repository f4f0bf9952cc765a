"""Something is done to a disk and recorded; the states on the way, in a mutant's order."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.images import Tree, halved
from tests.faults.recording import Noted, Operation, RecordingDisk
from tests.faults.stage import using

Mutate = Callable[[list[Noted]], list[Noted]]
OLD, NEW = b"old " * 400, b"new " * 500


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Interrupted(RecordingDisk):
    """`killed`: after how many operations; `failing`: the number of a sync that fails instead."""

    killed: int | None = None
    failing: int | None = None

    def _note(self, operation: Operation) -> None:
        if len(self.noted) == self.failing:
            self.failing = None
            raise OSError(errno.EIO, "the disk is broken")
        super()._note(operation)
        if len(self.noted) == self.killed:
            raise Killed


def states(before: Tree, noted: list[Noted]) -> Iterator[Tree]:
    """The disk at each point of what was noted."""
    tree = before.copy()
    for each in noted:
        yield tree.copy()
        if half := halved(each.operation):
            yield tree.copy().go([half])
        tree.go([each.operation])
    yield tree


def record(
    root: Path, act: Callable[[], None], mutate: Mutate, failing: int | None = None
) -> Iterator[Tree]:
    """Do it and give the states on the way, in the mutant's order."""
    before = Tree.load(root)
    with using(disk := Interrupted(root, failing=failing)):
        act()
    return states(before, mutate(disk.noted))
