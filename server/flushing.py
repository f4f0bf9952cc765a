"""What is kept in memory and written now and then, so that no request waits for it."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod

from shared.errors import WeftError

FLUSH_SECONDS = 10.0


class Flusher(ABC):
    """Calls `flush` every FLUSH_SECONDS and once more at the end, in a thread of its own."""

    def __init__(self, what: str, log: logging.Logger) -> None:
        self._what, self._log = what, log
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)

    def start(self) -> None:
        """Begin to write in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is left and end."""
        self._stopping.set()
        self._thread.join()

    @abstractmethod
    def flush(self) -> None:
        """Write what there is; what cannot be written is kept for the next time."""

    def pause(self, seconds: float) -> None:
        """Let others write, unless it is to end."""
        self._stopping.wait(seconds)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stopping.wait(FLUSH_SECONDS)
            try:
                self.flush()
            except WeftError as error:
                self._log.warning("%s are kept for the next time: %s", self._what, error)
            except Exception:
                self._log.exception("%s are kept for the next time", self._what)
