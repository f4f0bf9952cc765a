"""When devices were last seen: kept in memory, written in batches.

A poll happens every few seconds on every device; a row written for each would be the server's main
work. What a crash loses is at most the last interval.

Writing waits for nobody and keeps nobody waiting. A batch is one statement, so it takes the
database's time and hardly any of Python's, which polls are answered with; after each there is a
pause, in which other writers get their turn. On PostgreSQL it passes over rows that others have
locked, so it is never part of a deadlock; those are written the next time.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from server.db import BATCH_ROWS, writing
from server.flushing import Flusher

log = logging.getLogger("weft.devices")

#: Between two batches. SQLite's writers look for the lock every few milliseconds.
PAUSE_SECONDS = 0.05

#: A sighting that could not be written for so long is forgotten: its device may be gone.
FORGET_SECONDS = 300.0

#: Device ids -> seconds since 1970, as SQLAlchemy stores a moment.
SQLITE = text(
    "UPDATE devices "
    "SET last_seen_at = strftime('%Y-%m-%d %H:%M:%f', seen.value, 'unixepoch') || '000' "
    "FROM json_each(:seen) AS seen WHERE devices.id = seen.key"
)
POSTGRES = text(
    "WITH free AS ("
    " SELECT id FROM devices WHERE id = ANY(CAST(:ids AS text[])) FOR NO KEY UPDATE SKIP LOCKED"
    "), seen AS ("
    " SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:moments AS float8[])) AS seen(id, at)"
    ") UPDATE devices SET last_seen_at = GREATEST(last_seen_at, to_timestamp(seen.at)) "
    "FROM seen, free WHERE devices.id = free.id AND seen.id = free.id RETURNING devices.id"
)


class Presence(Flusher):
    """Collects sightings of devices, and writes them now and then and at the end."""

    def __init__(self, engine: Engine) -> None:
        super().__init__("sightings", log)
        self._engine = engine
        sqlite = engine.dialect.name == "sqlite"
        self._write: Callable[..., Collection[str]] = _to_sqlite if sqlite else _to_postgres
        self._seen: dict[str, float] = {}
        self._unwritten: dict[str, float] = {}
        self._lock = threading.Lock()

    def saw(self, device_id: str) -> None:
        """Note that a device asked for something just now."""
        with self._lock:
            self._seen[device_id] = round(time.time(), 3)  # SQLite keeps milliseconds

    def last_seen(self, device_id: str, stored: datetime | None) -> datetime | None:
        """When the device was last seen, if need be before that is written."""
        with self._lock:
            seen = self._seen.get(device_id) or self._unwritten.get(device_id)
        return datetime.fromtimestamp(seen, UTC) if seen else stored

    def flush(self) -> None:
        """Write all sightings; they stay readable here until they are in the database.

        Raises DatabaseError; what was not written is kept for the next time.
        """
        with self._lock:
            old = time.time() - FORGET_SECONDS
            kept = {device: at for device, at in self._unwritten.items() if at > old}
            self._unwritten, self._seen = kept | self._seen, {}
        devices = list(self._unwritten)
        for start in range(0, len(devices), BATCH_ROWS):
            if start:
                self.pause(PAUSE_SECONDS)
            batch = {d: self._unwritten[d] for d in devices[start : start + BATCH_ROWS]}
            with writing(self._engine, alone=False) as session:
                written = self._write(session, batch)
            with self._lock:
                for device in written:
                    del self._unwritten[device]


def _to_sqlite(session: Session, batch: Mapping[str, float]) -> Collection[str]:
    session.execute(SQLITE, {"seen": json.dumps(batch)})
    return batch.keys()


def _to_postgres(session: Session, batch: Mapping[str, float]) -> Collection[str]:
    found = {"ids": list(batch), "moments": list(batch.values())}
    return session.scalars(POSTGRES, found).all()
