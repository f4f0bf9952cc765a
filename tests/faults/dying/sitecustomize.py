"""Imported by each Python that starts with this folder in PYTHONPATH: the agent and its children.

At the operation on the disk of number DYING_AT (from 0), counted over all of them, the agent and
the child that does it are killed by SIGKILL, with DYING_HALF after half of that write. What lies
outside DYING_ROOT is not counted.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent import files, undo

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ROOT = Path(os.environ["DYING_ROOT"])
COUNT = Path(os.environ["DYING_COUNT"])
AT, HALF = int(os.environ["DYING_AT"]), bool(os.environ["DYING_HALF"])
#: Of the agent; children find it set.
AGENT = int(os.environ.setdefault("DYING_AGENT", str(os.getpid())))


def die() -> None:
    """The agent waits for its child, so it does nothing any more."""
    os.kill(AGENT, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


class DyingDisk(files.Disk):
    """Like that of the recording, the first one is asked for before anything is done."""

    def __init__(self) -> None:
        self._inside: set[int] = set()

    def open(self, path: Path, flags: int, mode: int) -> int:
        self._count_at(path)
        descriptor = super().open(path, flags, mode)
        self._inside.discard(descriptor)
        if path.is_relative_to(ROOT):
            self._inside.add(descriptor)
        return descriptor

    def write(self, descriptor: int, data: ReadableBuffer) -> int:
        if descriptor in self._inside and count() == AT:
            if HALF:
                super().write(descriptor, memoryview(data)[: len(memoryview(data)) // 2])
            die()
        return super().write(descriptor, data)

    def truncate(self, descriptor: int, size: int) -> None:
        self._count_of(descriptor)
        super().truncate(descriptor, size)

    def fsync(self, descriptor: int) -> None:
        self._count_of(descriptor)
        super().fsync(descriptor)

    def rename(self, path: Path, target: Path) -> None:
        self._count_at(path)
        super().rename(path, target)

    def unlink(self, path: Path) -> None:
        self._count_at(path)
        super().unlink(path)

    def symlink(self, destination: str, path: Path) -> None:
        self._count_at(path)
        super().symlink(destination, path)

    def mkdir(self, path: Path, mode: int) -> None:
        self._count_at(path)
        super().mkdir(path, mode)

    def fsync_directory(self, path: Path) -> None:
        self._count_at(path)
        super().fsync_directory(path)

    def _count_at(self, path: Path) -> None:
        if path.is_relative_to(ROOT) and count() == AT:
            die()

    def _count_of(self, descriptor: int) -> None:
        if descriptor in self._inside and count() == AT:
            die()


def count() -> int:
    """How many operations came before this one, in all processes; they work one after the other."""
    with COUNT.open("ab") as file:
        file.write(b".")
        return file.tell() - 1


files.disk = DyingDisk()
undo.BLOCK_FRAMES = 2  # as in the recording
