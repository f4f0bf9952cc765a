"""Every write of the agent. No other module of it opens a file for writing, links or removes one.

Power may fail at any instruction. A file is therefore never changed in place: it is written beside
its target, synced, renamed over it, and the directory is synced; a reader, or the agent after a
restart, finds the old content or the new one. There are two exceptions: the download, which grows
in place and is worth nothing until its SHA-256 has been checked; and the weights of mode `inplace`,
which are changed by `edge_agent.undo` in a way of its own.

Raises NoSpace: `storage.no_space` where the disk is full, `storage.unusable` for all else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edge_agent.errors import AgentError
from shared.errors import NoSpace
from shared.places import check_place

SUFFIX = ".weft-tmp"
PRIVATE, PUBLIC = 0o600, 0o644
_COPY_BYTES = 1 << 20


@contextlib.contextmanager
def replacing(target: Path, mode: int = PUBLIC) -> Iterator[BinaryIO]:
    """Give an empty file (w+b) that becomes `target`, durably, when the block ends well.

    After an error in the block, `target` is as it was and the new file is gone.
    """
    with _seam(target):
        check_place(target)
    beside = target.with_name(f".{target.name}.{os.getpid()}{SUFFIX}")
    try:
        with _seam(target):
            beside.unlink(missing_ok=True)
            with open(beside, "x+b", opener=lambda path, flags: os.open(path, flags, mode)) as file:
                yield file
                sync(file)
            beside.replace(target)
            sync_directory(target.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


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
    with _seam(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PUBLIC)
        with os.fdopen(descriptor, "r+b") as file:
            try:
                yield file
            finally:
                sync(file)
                sync_directory(path.parent)


@contextlib.contextmanager
def patching(path: Path) -> Iterator[BinaryIO]:
    """Give a file (r+b) to be changed in place; what is written is durable once it is synced.

    Waits while another process does the same: it is one that is being killed.
    """
    with _seam(path), path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def link(path: Path, destination: str) -> None:
    """Make `path` a symbolic link to `destination` (relative to it), whatever it was before."""
    beside = path.with_name(f".{path.name}.{os.getpid()}{SUFFIX}")
    with _seam(path):
        beside.unlink(missing_ok=True)
        beside.symlink_to(destination)
        beside.replace(path)
        sync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    with _seam(path):
        if path.exists() or path.is_symlink():
            path.unlink()
            sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Make a directory and the ones above it, if they are not there."""
    with _seam(path):
        missing = [p for p in (path, *path.parents) if not p.exists()]
        for directory in reversed(missing):
            directory.mkdir(mode=0o755, exist_ok=True)
            sync_directory(directory.parent)


def clean(directory: Path) -> None:
    """Remove what a killed agent left half-written; only under `lock`."""
    with _seam(directory):
        for leftover in directory.glob(f".*{SUFFIX}"):
            leftover.unlink()


def free_bytes(directory: Path) -> int:
    """Count the bytes that can still be written there."""
    with _seam(directory):
        return shutil.disk_usage(directory).free


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock at `path`; raises AgentError `busy` where another process does."""
    with _seam(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AgentError("busy", f"{path} is locked") from error
        yield
    finally:
        os.close(descriptor)


def sync(file: BinaryIO) -> None:
    """Flush and fsync."""
    file.flush()
    os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Make creations, renames and removals in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
