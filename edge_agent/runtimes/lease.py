"""The lease: many inferences at a time, or one change of the weights.

A change goes first: once one waits, no new inference begins, so that a busy loop cannot starve it.
After the change the lease may stay closed for a while, until the new weights are accepted.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator


class Lease:
    """Closed at first: there are no weights yet."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._closed = True
        self._mine = threading.local()

    @contextlib.contextmanager
    def read(self, timeout: float | None = None) -> Iterator[None]:
        """Run an inference in the block; the weights stay as they are meanwhile.

        A thread that has the lease already gets it at once, however many changes wait. Raises
        TimeoutError where the lease stays closed for `timeout` seconds.
        """
        depth = getattr(self._mine, "depth", 0)
        if not depth:
            self._enter(timeout)
        self._mine.depth = depth + 1
        try:
            yield
        finally:
            self._mine.depth = depth
            if not depth:
                self._leave()

    def close(self, timeout: float) -> None:
        """Let no inference begin, and wait until those under way have ended.

        Raises TimeoutError, with the lease as it was, where one of them takes longer.
        """
        until = time.monotonic() + timeout
        with self._changed:
            before, self._closed = self._closed, True
            while self._readers:
                if not self._changed.wait(until - time.monotonic()) and self._readers:
                    self._closed = before
                    self._changed.notify_all()
                    raise TimeoutError(f"an inference did not end in {timeout:g} s")

    def open(self) -> None:
        """Let inferences begin."""
        with self._changed:
            self._closed = False
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether inferences wait."""
        return self._closed

    def _enter(self, timeout: float | None) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: not self._closed, timeout):
                raise TimeoutError(f"the weights were not released in {timeout:g} s")
            self._readers += 1

    def _leave(self) -> None:
        with self._changed:
            self._readers -= 1
            if not self._readers:
                self._changed.notify_all()
