"""Every write of the agent. No other module of it opens a file for writing, links or removes one.

Power may fail at any instruction. A file is therefore never changed in place: it is written beside
its target, synced, renamed over it, and the directory is synced; a reader, or the agent after a
restart, finds the old content or the new one. There are two exceptions: the download, which grows
in place and is worth nothing until its SHA-256 has been checked; and the weights of mode `inplace`,
which are changed by `edge_agent.undo` in a way of its own.

When a function returns, what it did is on the disk. What an agent that was killed has done may be
in memory only, though it can be read: `make_directory` and `clean`, at the start, make it durable.

All system calls that change a disk are made by `disk`, in whose place tests put one that records
them, or that fails.

Raises NoSpace: `storage.no_space` where the disk is full, `storage.unusable` for all else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from edge_agent.errors import AgentError
from shared.errors import NoSpace
from shared.places import check_place

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

SUFFIX = ".weft-tmp"
PRIVATE, PUBLIC = 0o600, 0o644
_COPY_BYTES = 1 << 20
_BUFFER_BYTES = 1 << 16


class Disk:
    """The system calls by which this module changes a disk; each raises OSError."""

    def open(self, path: Path, flags: int, mode: int) -> int:
        """Open a file, which may make it; the descriptor."""
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def write(self, descriptor: int, data: ReadableBuffer) -> int:
        """Write where the file stands; how many bytes were taken, which may be fewer."""
        return os.write(descriptor, data)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut or lengthen a file."""
        os.ftruncate(descriptor, size)

    def fsync(self, descriptor: int) -> None:
        """Make the content of a file durable, not its name."""
        os.fsync(descriptor)

    def rename(self, path: Path, target: Path) -> None:
        """Give a file another name, in place of what has it."""
        path.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        path.unlink()

    def symlink(self, destination: str, path: Path) -> None:
        """Make a symbolic link at `path`."""
        path.symlink_to(destination)

    def mkdir(self, path: Path, mode: int) -> None:
        """Make a directory."""
        path.mkdir(mode)

    def fsync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


disk = Disk()


class _File(io.FileIO):
    """A file that is changed through `disk`."""

    def write(self, data: ReadableBuffer, /) -> int:
        return disk.write(self.fileno(), data)

    def truncate(self, size: int | None = None, /) -> int:
        disk.truncate(self.fileno(), wanted := self.tell() if size is None else size)
        return wanted


@contextlib.contextmanager
def replacing(target: Path, mode: int = PUBLIC) -> Iterator[BinaryIO]:
    """Give an empty file (w+b) that becomes `target`, durably, when the block ends well.

    After an error in the block, `target` is as it was and the new file is gone.
    """
    with _seam(target):
        check_place(target)
    with _seam(target), _beside(target) as beside:
        with _opened(beside, os.O_CREAT | os.O_EXCL, mode) as file:
            yield file
            sync(file)
        disk.rename(beside, target)
        disk.fsync_directory(target.parent)


def write(target: Path, data: bytes, mode: int = PUBLIC) -> None:
    """Make `data` the whole content of `target`."""
    with replacing(target, mode) as file:
        file.write(data)


def copy(source: Path, target: Path) -> None:
    """Make `target` a copy of `source`."""
    with _seam(source), source.open("rb") as given, replacing(target) as file:
        shutil.copyfileobj(given, file, _COPY_BYTES)


@contextlib.contextmanager
def growing(path: Path) -> Iterator[BinaryIO]:
    """Give the file of a download, made if need be; synced when the block ends, however it ends."""
    with _seam(path), _opened(path, os.O_CREAT) as file:
        disk.fsync_directory(path.parent)
        try:
            yield file
        finally:
            sync(file)


@contextlib.contextmanager
def patching(path: Path) -> Iterator[BinaryIO]:
    """Give a file (r+b) to be changed in place; what is written is durable once it is synced.

    Waits while another process does the same: it is one that is being killed.
    """
    with _seam(path), _opened(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def link(path: Path, destination: str) -> None:
    """Make `path` a symbolic link to `destination` (relative to it), whatever it was before."""
    with _seam(path), _beside(path) as beside:
        disk.symlink(destination, beside)
        disk.rename(beside, path)
        disk.fsync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    with _seam(path):
        _discard(path)
        disk.fsync_directory(path.parent)  # the attempt before this one may have failed here


def make_directory(path: Path) -> None:
    """Make a directory and the ones above it, if they are not there."""
    with _seam(path):
        missing = [p for p in (path, *path.parents) if not p.exists()]
        existing = missing[-1].parent if missing else path
        with contextlib.suppress(PermissionError):  # then it was not made by an agent
            disk.fsync_directory(existing.parent)
        for directory in reversed(missing):
            with contextlib.suppress(FileExistsError):  # another agent starts beside this one
                disk.mkdir(directory, 0o755)
            disk.fsync_directory(directory.parent)


def clean(directory: Path) -> None:
    """Remove what a killed agent left half-written, and make durable what it left whole.

    Only under `lock`.
    """
    with _seam(directory):
        for leftover in directory.glob(f".*{SUFFIX}"):
            disk.unlink(leftover)
        disk.fsync_directory(directory)


def free_bytes(directory: Path) -> int:
    """Count the bytes that can still be written there."""
    with _seam(directory):
        return shutil.disk_usage(directory).free


def exists(path: Path) -> bool:
    """Whether there is a file, or a link that leads to one."""
    with _seam(path):
        return path.exists()


def size(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    with _seam(path):
        return path.stat().st_size if path.exists() else 0


def destination(path: Path) -> str | None:
    """Where a symbolic link leads to; None where there is no link."""
    with _seam(path):
        return str(path.readlink()) if path.is_symlink() else None


def matching(directory: Path, pattern: str) -> list[Path]:
    """What lies in a directory and has such a name."""
    with _seam(directory):
        return list(directory.glob(pattern))


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock at `path`; raises AgentError `busy` where another process does."""
    with _seam(path):
        descriptor = disk.open(path, os.O_RDWR | os.O_CREAT, PRIVATE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AgentError("busy", f"{path} is locked") from error
        yield
    finally:
        os.close(descriptor)


def sync(file: BinaryIO) -> None:
    """Make what was written to a file durable."""
    file.flush()
    disk.fsync(file.fileno())


def _opened(path: Path, flags: int = 0, mode: int = PUBLIC) -> BinaryIO:
    """The file at `path` for reading and writing, through `disk`."""
    raw = _File(path, "r+", opener=lambda _path, _: disk.open(path, os.O_RDWR | flags, mode))
    return io.BufferedRandom(raw, _BUFFER_BYTES)


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A name for what is to be renamed to `target`; nothing has it after an error in the block."""
    beside = target.with_name(f".{target.name}.{os.getpid()}{SUFFIX}")
    try:
        _discard(beside)
        yield beside
    except BaseException:
        with contextlib.suppress(OSError):
            _discard(beside)
        raise


def _discard(path: Path) -> None:
    if os.path.lexists(path):
        disk.unlink(path)


@contextlib.contextmanager
def _seam(path: Path) -> Iterator[None]:
    """Turn the system's errors into ours; `path` is named where the error names no file."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        place = error.filename or path
        code = "no_space" if full else "unusable"
        raise NoSpace(code, f"{place}: {error.strerror or error}") from error
