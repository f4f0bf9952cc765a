"""Where time passes for the agent: it waits here and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime


class Clock:
    """Seconds that only grow, by which everything that is to be done later is dated.

    What was waited for counts as passed even where `wait` returned sooner: then tests need not
    wait, and a device that slept meanwhile is not late.
    """

    def __init__(self, wait: Callable[[float], None]) -> None:
        self._wait, self._ahead = wait, 0.0

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic() + self._ahead

    def local(self) -> datetime:
        """What a clock on the wall says."""
        return datetime.fromtimestamp(time.time() + self._ahead).astimezone()

    def wait(self, seconds: float) -> None:
        """Let that many seconds pass."""
        began = time.monotonic()
        self._wait(seconds)
        self._ahead += max(0.0, seconds - (time.monotonic() - began))
