"""When devices were last seen: kept in memory, written in batches.

A poll happens every few seconds on every device; a row written for each would be the server's main
work. What a crash loses is at most the last interval.
"""

from __future__ import annotations

import logging
import threading
from datetime import datetime

from sqlalchemy import Engine, update

from server.db import BATCH_ROWS, writing
from server.tables import Device, now
from shared.errors import WeftError

log = logging.getLogger("weft.devices")

FLUSH_SECONDS = 10.0


class Presence:
    """Collects sightings of devices, and writes them every FLUSH_SECONDS and at the end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._seen: dict[str, datetime] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """Begin to write in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is left and end."""
        self._stopping.set()
        self._thread.join()

    def saw(self, device_id: str) -> None:
        """Note that a device asked for something just now."""
        with self._lock:
            self._seen[device_id] = now()

    def last_seen(self, device_id: str, stored: datetime | None) -> datetime | None:
        """When the device was last seen, if need be before that is written."""
        with self._lock:
            return self._seen.get(device_id, stored)

    def flush(self) -> None:
        """Write all sightings; they stay readable here until they are in the database."""
        with self._lock:
            seen = dict(self._seen)
        rows = [{"id": device, "last_seen_at": at} for device, at in seen.items()]
        for start in range(0, len(rows), BATCH_ROWS):
            with writing(self._engine) as session:
                session.execute(update(Device), rows[start : start + BATCH_ROWS])
        with self._lock:
            self._seen = {d: at for d, at in self._seen.items() if seen.get(d) != at}

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stopping.wait(FLUSH_SECONDS)
            try:
                self.flush()
            except WeftError as error:
                log.warning("sightings are kept for the next time: %s", error)
