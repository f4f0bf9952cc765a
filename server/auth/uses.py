"""When keys were last used: kept in memory and written now and then, so that no request waits."""

from __future__ import annotations

import logging
import threading
from datetime import datetime

from sqlalchemy import Engine, update

from server import logs
from server.db import writing
from server.flushing import Flusher
from server.tables import ApiKey, now

log = logging.getLogger("weft.access")


class KeyUses(Flusher):
    """Collects uses of keys, and writes them now and then and at the end."""

    def __init__(self, engine: Engine) -> None:
        super().__init__("uses of keys", log)
        self._engine = engine
        self._uses: dict[str, tuple[datetime, str | None]] = {}
        self._lock = threading.Lock()

    def used(self, key_id: str) -> None:
        """Note that a key opened the request that is being served."""
        trace = logs.current()
        with self._lock:
            self._uses[key_id] = (now(), trace.address if trace else None)

    def flush(self) -> None:
        """Write all uses. Raises DatabaseError; what was not written is kept for the next time."""
        with self._lock:
            uses, self._uses = self._uses, {}
        try:
            if uses:
                self._write(uses)
        except BaseException:
            with self._lock:
                self._uses = uses | self._uses
            raise

    def _write(self, uses: dict[str, tuple[datetime, str | None]]) -> None:
        with writing(self._engine, alone=False) as session:
            for key_id, (moment, address) in sorted(uses.items()):
                values = {"last_used_at": moment, "last_used_from": address}
                session.execute(update(ApiKey).where(ApiKey.id == key_id).values(**values))
