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
#: `there`: whatever is done to that file; `everywhere`: all that follows.
Extent: TypeAlias = Literal["once", "there", "everywhere"]


@dataclass
class FailingDisk(files.Disk):
    """Fails at the operation of number `at` (from 0), and at those after it that `extent` says.

    A disk that is full takes half of a write before it says so. `at` infinite: it never fails.
    """

    kind: Kind
    at: float
    extent: Extent = "once"

    def __post_init__(self) -> None:
        self.operations: list[str] = []
        self.paths: dict[int, Path] = {}
        self._broken: str | None = None
        self.is_repaired = self.has_failed = self._is_full = False

    def repair(self) -> None:
        """From now on all is well."""
        self.is_repaired = True

    def open(self, path: Path, flags: int, mode: int) -> int:
        self._operate("open", path)
        descriptor = super().open(path, flags, mode)
        self.paths[descriptor] = path
        return descriptor

    def write(self, descriptor: int, data: ReadableBuffer) -> int:
        whole = memoryview(data)
        fails = self._fails("write", self.paths[descriptor])
        if self._is_full:  # it has taken a part already
            self._is_full = False
            raise self.error()
        part = whole[: len(whole) // 2]
        if not fails or (self.kind == "short" and not part):
            return super().write(descriptor, whole)
        if self.kind not in ("short", "ENOSPC") or not part:
            raise self.error()
        self._is_full = self.kind == "ENOSPC"
        return super().write(descriptor, part)

    def truncate(self, descriptor: int, size: int) -> None:
        self._operate("truncate", self.paths[descriptor])
        super().truncate(descriptor, size)

    def fsync(self, descriptor: int) -> None:
        self._operate("fsync", self.paths[descriptor])  # to sync would only take time

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

    def _operate(self, name: str, path: Path) -> None:
        if self._fails(name, path) and self.kind != "short":
            raise self.error(path)

    def _fails(self, name: str, path: Path) -> bool:
        number = len(self.operations)
        self.operations.append(name)
        if number == self.at:
            self._broken = _final_name(path)
        is_there = self.extent == "everywhere" or (
            self.extent == "there" and self._broken == _final_name(path)
        )
        fails = number == self.at or (number > self.at and is_there)
        self.has_failed |= fails
        return fails and not self.is_repaired

    def error(self, path: Path | None = None) -> OSError:
        """What the kernel says."""
        number = getattr(errno, self.kind)
        return OSError(number, os.strerror(number), *([str(path)] if path else []))


def _final_name(path: Path) -> str:
    """What a file is called that is not beside its target any more."""
    if path.suffix != files.SUFFIX:
        return path.name
    return path.stem.removeprefix(".").rpartition(".")[0]
