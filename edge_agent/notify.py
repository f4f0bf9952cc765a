"""What the agent tells the service manager: that it is ready, that it lives, that it stops.

The protocol is that of sd_notify(3), one datagram a message to the socket that NOTIFY_SOCKET names.
Without that variable, or where nobody listens, nothing is said.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, MutableMapping

from edge_agent.stopping import STOP, Stop

#: A sign of life comes so many times in the time that the watchdog allows.
BEATS_IN_TIME = 3
#: How long a message may wait for room in the socket.
_PATIENCE_SECONDS = 1.0
_KIND = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """The service manager of this process, if there is one.

    What it said is taken out of `environment`: it is not meant for the programs started from here.
    `clock` tells seconds that only go forward.
    """

    def __init__(
        self,
        environment: MutableMapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
        stop: Stop = STOP,
    ) -> None:
        address, microseconds, pid = (environment.pop(name, "") for name in _VARIABLES)
        self._address = "\0" + address[1:] if address.startswith("@") else address
        is_ours = pid in ("", str(os.getpid()))
        watched = int(microseconds) if is_ours and microseconds.isdecimal() else 0
        self._interval = watched / 1e6 / BEATS_IN_TIME
        self._clock, self._beat_at, self._status, self._stop = clock, clock(), "", stop

    def ready(self) -> None:
        """The agent works: its state is read, whether or not the server answers."""
        self._tell("READY=1")

    def beat(self) -> None:
        """The agent lives. To be called often: it says no more than the watchdog needs.

        Where the agent was asked to end, this raises what ends it.
        """
        self._stop.check()
        if self._interval and self._clock() >= self._beat_at:
            self._beat_at = self._clock() + self._interval
            self._tell("WATCHDOG=1")

    def status(self, text: str) -> None:
        """What the agent does, in one line for people; said where it is something new."""
        if text != self._status:
            self._status = text
            self._tell(f"STATUS={' '.join(text.split())}")

    def stopping(self) -> None:
        """The agent was asked to end, and does."""
        self._tell("STOPPING=1")

    def wait(self, seconds: float) -> None:
        """Sleep, with signs of life."""
        until = self._clock() + seconds
        self.beat()
        while (left := until - self._clock()) > 0:
            with self._stop:
                time.sleep(min(left, self._interval or left))
            self.beat()

    def _tell(self, message: str) -> None:
        """Send it; a service manager that does not take it is not waited for."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, _KIND) as manager:
            manager.settimeout(_PATIENCE_SECONDS)
            manager.sendto(message.encode(), self._address)
