"""How the agent is asked to end, which a signal does.

What the handler of a signal raises can strike between any two instructions: also where a library
holds a lock and has not yet entered the block that gives it back; whoever tidies up then waits for
ever. So the handler only takes note. The exception is raised where the agent gives a sign of life,
which it does every second while it works, and at once where it sleeps or connects.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType


class Stop:
    """Whether the agent was asked to end. As a context: meanwhile `ask` raises at once."""

    def __init__(self) -> None:
        self._kind: type[BaseException] | None = None
        self._may_strike = False

    def ask(self, kind: type[BaseException]) -> None:
        """Have `kind` raised; for the handler of a signal."""
        self._kind = kind
        if self._may_strike:
            raise kind

    def check(self) -> None:
        """Raise what was asked for, if anything."""
        if self._kind:
            raise self._kind

    def __enter__(self) -> None:
        self._may_strike = True  # before the look: what is asked for in between strikes
        if self._kind:
            self._may_strike = False
            raise self._kind

    def __exit__(self, *_: object) -> None:
        self._may_strike = False


#: Of this process, as its signals are.
STOP = Stop()


def end_on_signals(kind: type[BaseException], tell: Callable[[], None] = lambda: None) -> None:
    """Let the first SIGTERM or SIGINT `tell` and end the work by `kind`; ignore those after it."""

    def end(_number: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        tell()
        STOP.ask(kind)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
