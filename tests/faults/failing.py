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

    A disk that is full takes half of a write before it says so. `at` infinite: it never fails.
    """

    kind: Kind
    at: float
    lasts: bool = False

    def __post_init__(self) -> None:
        self.operations: list[str] = []
        self.is_repaired = self.has_failed = self._is_full = False

    def repair(self) -> None:
        """From now on all is well."""
        self.is_repaired = True

    def open(self, path: Path, flags: int, mode: int) -> int:
        self._operate("open", path)
        return super().open(path, flags, mode)

    def write(self, descriptor: int, data: ReadableBuffer) -> int:
        whole = memoryview(data)
        fails = self._fails("write")
        if self._is_full:  # it has taken a part already
            self._is_full = False
            raise self._error()
        part = whole[: len(whole) // 2]
        if not fails or (self.kind == "short" and not part):
            return super().write(descriptor, whole)
        if self.kind not in ("short", "ENOSPC") or not part:
            raise self._error()
        self._is_full = self.kind == "ENOSPC"
        return super().write(descriptor, part)

    def truncate(self, descriptor: int, size: int) -> None:
        self._operate("truncate")
        super().truncate(descriptor, size)

    def fsync(self, descriptor: int) -> None:
        self._operate("fsync")

    def rename(self, path: Path, target: Path) -> None:
        self._operate("rename", path)
        super().rename(path, target)

    def unlink(self, path: Path) -> None:
        self._operate("unlink", path)
        super().unlink(path)

    def symlink(self, destination: str, path: Path) -> None:
        self._operate("symlink", path)
        super().symlink(destination, path)

    def mkdir(self, path: Path, mode: int) -> None:
        self._operate("mkdir", path)
        super().mkdir(path, mode)

    def fsync_directory(self, path: Path) -> None:
        self._operate("fsync_directory", path)

    def _operate(self, name: str, path: Path | None = None) -> None:
        if self._fails(name) and self.kind != "short":
            raise self._error(path)

    def _fails(self, name: str) -> bool:
        number = len(self.operations)
        self.operations.append(name)
        fails = number == self.at or (self.lasts and number > self.at)
        self.has_failed |= fails
        return fails and not self.is_repaired

    def _error(self, path: Path | None = None) -> OSError:
        number = getattr(errno, self.kind)
        return OSError(number, os.strerror(number), *([str(path)] if path else []))
