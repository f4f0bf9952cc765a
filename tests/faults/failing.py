"""A disk that fails: from one operation on, for that one or until it is repaired."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from edge_agent import files

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: `short`: of each write only a part is taken, which is no error.
Kind: TypeAlias = Literal["ENOSPC", "EIO", "EROFS", "short"]
KINDS: tuple[Kind, ...] = ("ENOSPC", "EIO", "EROFS", "short")


@dataclass
class FailingDisk(files.Disk):
    """Fails at the operation of number `at` (from 0), and with `lasts` at all after it.

    A disk that is full takes half of what was to be written before it says so.
    """

    kind: Kind
    at: int
    lasts: bool

    def __post_init__(self) -> None:
        self.done = 0
        self.failed = 0
        self._is_repaired = False

    def repair(self) -> None:
        """From now on all is well."""
        self._is_repaired = True

    def open(self, path: Path, flags: int, mode: int) -> int:
        self._operate(path)
        return super().open(path, flags, mode)

    def write(self, descriptor: int, data: ReadableBuffer) -> int:
        fails = self._fails()
        part = memoryview(data)[: max(1, len(memoryview(data)) // 2)]
        if fails and self.kind == "short":
            return super().write(descriptor, part)
        if fails:
            if self.kind == "ENOSPC":
                super().write(descriptor, part)
            raise self._error()
        return super().write(descriptor, data)

    def truncate(self, descriptor: int, size: int) -> None:
        self._operate()
        super().truncate(descriptor, size)

    def fsync(self, descriptor: int) -> None:  # noqa: ARG002 - to sync would only take time
        self._operate()

    def rename(self, path: Path, target: Path) -> None:
        self._operate(path)
        super().rename(path, target)

    def unlink(self, path: Path) -> None:
        self._operate(path)
        super().unlink(path)

    def symlink(self, destination: str, path: Path) -> None:
        self._operate(path)
        super().symlink(destination, path)

    def mkdir(self, path: Path, mode: int) -> None:
        self._operate(path)
        super().mkdir(path, mode)

    def fsync_directory(self, path: Path) -> None:
        self._operate(path)

    def _operate(self, path: Path | None = None) -> None:
        if self._fails() and self.kind != "short":
            raise self._error(path)

    def _fails(self) -> bool:
        number, self.done = self.done, self.done + 1
        if self._is_repaired or not (number == self.at or (self.lasts and number > self.at)):
            return False
        self.failed += 1
        return True

    def _error(self, path: Path | None = None) -> OSError:
        number = getattr(errno, self.kind)
        return OSError(number, os.strerror(number), *([str(path)] if path else []))
