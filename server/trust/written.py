"""Files that a ceremony leaves: whole and durable, or not there."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

#: Of file systems without hard links, such as a stick's.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP})


def write_new(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write what is not there yet. Raises FileExistsError, and OSError of the disk."""
    beside = _beside(path, content, mode)
    try:
        os.link(beside, path)  # unlike a rename it never takes another file's place
    except OSError as error:
        if error.errno not in _NO_LINKS or path.exists():
            raise
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def replace(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write in place of what is there, if anything. Raises OSError."""
    beside = _beside(path, content, mode)
    try:
        beside.replace(path)
    except OSError:
        beside.unlink()
        raise
    sync_folder(path.parent)


def _beside(path: Path, content: bytes, mode: int) -> Path:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        beside.unlink()
        raise
    return beside


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
