"""Whether this process can do its work now: what a load balancer asks every second or two."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from server.db import check_current
from server.errors import ServerError
from server.storage.base import BlobStore
from shared.errors import WeftError

FRESH_SECONDS = 1.0


class Readiness:
    """Checks the database, its schema and the blob store, at most every FRESH_SECONDS."""

    def __init__(self, engine: Engine, blobs: BlobStore) -> None:
        self._checks: dict[str, Callable[[], object]] = {
            "database": lambda: check_current(engine),
            "blobs": blobs.check,
        }
        self._lock = threading.Lock()
        self._checked_at = float("-inf")
        self._wrong: dict[str, str] = {}

    def check(self) -> list[str]:
        """The names of what was found in order. Raises ServerError `not_ready`."""
        with self._lock:
            if time.monotonic() - self._checked_at > FRESH_SECONDS:
                self._wrong = {n: text for n in self._checks if (text := self._ask(n))}
                self._checked_at = time.monotonic()
            wrong = self._wrong
        if wrong:
            text = "; ".join(f"{name}: {found}" for name, found in wrong.items())
            raise ServerError("not_ready", text)
        return list(self._checks)

    def _ask(self, name: str) -> str:
        """What is wrong, empty where nothing is."""
        try:
            self._checks[name]()
        except (WeftError, SQLAlchemyError, OSError) as error:
            return str(error).partition("\n")[0] or type(error).__name__
        return ""
