"""What is done to a disk, operation by operation.

`RecordingDisk` takes the place of `files.disk`: it does the real thing and notes it. A file is
known by the number of its opening, as its name may change while it is open. Whatever lies outside
`root` is done and not noted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from edge_agent import files

if TYPE_CHECKING:
    from types import FrameType

    from _typeshed import ReadableBuffer


PACKAGE = f"{Path(files.__file__).parent}/"


class Open(NamedTuple):
    path: Path
    file: int
    mode: int


class Write(NamedTuple):
    file: int
    offset: int
    data: bytes


class Truncate(NamedTuple):
    file: int
    size: int


class Fsync(NamedTuple):
    file: int


class Rename(NamedTuple):
    path: Path
    target: Path


class Unlink(NamedTuple):
    path: Path


class Symlink(NamedTuple):
    path: Path
    destination: str


class Mkdir(NamedTuple):
    path: Path


class FsyncDirectory(NamedTuple):
    path: Path


Operation: TypeAlias = (
    Open | Write | Truncate | Fsync | Rename | Unlink | Symlink | Mkdir | FsyncDirectory
)


class Site(NamedTuple):
    """A line of the agent's source that asks for a sync, directly or by a call of `sync`."""

    module: str
    function: str
    line: int


class Noted(NamedTuple):
    """`heard`: how much the server had heard when the operation began. `sites`: innermost first."""

    operation: Operation
    heard: int
    sites: tuple[Site, ...]


@dataclass
class RecordingDisk(files.Disk):
    """`heard` counts what went over the network. With `syncs`, the real disk is synced as well."""

    root: Path
    heard: Callable[[], int] = lambda: 0
    syncs: bool = False

    def __post_init__(self) -> None:
        self.noted: list[Noted] = []
        self._opened = 0
        self._files: dict[int, int | None] = {}

    def open(self, path: Path, flags: int, mode: int) -> int:
        descriptor = super().open(path, flags, mode)
        self._opened += 1
        self._files[descriptor] = self._opened if path.is_relative_to(self.root) else None
        self._note_at(path, lambda place: Open(place, self._opened, mode))
        return descriptor

    def write(self, descriptor: int, data: ReadableBuffer) -> int:
        offset = os.lseek(descriptor, 0, os.SEEK_CUR)
        taken = super().write(descriptor, data)
        self._note_of(descriptor, lambda file: Write(file, offset, bytes(data)[:taken]))
        return taken

    def truncate(self, descriptor: int, size: int) -> None:
        super().truncate(descriptor, size)
        self._note_of(descriptor, lambda file: Truncate(file, size))

    def fsync(self, descriptor: int) -> None:
        if self.syncs:
            super().fsync(descriptor)
        self._note_of(descriptor, Fsync)

    def rename(self, path: Path, target: Path) -> None:
        super().rename(path, target)
        self._note_at(path, lambda place: Rename(place, place.with_name(target.name)))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._note_at(path, Unlink)

    def symlink(self, destination: str, path: Path) -> None:
        super().symlink(destination, path)
        self._note_at(path, lambda place: Symlink(place, destination))

    def mkdir(self, path: Path, mode: int) -> None:
        super().mkdir(path, mode)
        self._note_at(path, Mkdir)

    def fsync_directory(self, path: Path) -> None:
        if self.syncs:
            super().fsync_directory(path)
        self._note_at(path, FsyncDirectory)

    def _note_of(self, descriptor: int, made: Callable[[int], Operation]) -> None:
        file = self._files[descriptor]
        if file is not None:
            self._note(made(file))

    def _note_at(self, path: Path, made: Callable[[Path], Operation]) -> None:
        if path.is_relative_to(self.root):
            self._note(made(path.relative_to(self.root)))

    def _note(self, operation: Operation) -> None:
        self.noted.append(Noted(operation, self.heard(), sites_of(sys._getframe(3))))


def sites_of(frame: FrameType | None) -> tuple[Site, ...]:
    """The lines of the agent that are being carried out, innermost first."""
    sites = []
    while frame:
        folder, _, module = frame.f_code.co_filename.partition(PACKAGE)
        if not folder and module:
            sites.append(Site(module, frame.f_code.co_name, frame.f_lineno))
        frame = frame.f_back
    return tuple(sites)
