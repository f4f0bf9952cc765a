"""One process at a time on a data folder: SQLite serves no more, and a restore wants none."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.errors import DatabaseError
from shared.errors import NoSpace

LOCK_NAME = "server.lock"


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system frees it when the process ends, however it does.

    Raises DatabaseError `in_use`, and NoSpace where the folder cannot be used.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise NoSpace("unusable", f"{folder}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatabaseError("in_use", f"another server process uses {folder}") from error
        yield
    finally:
        os.close(descriptor)
