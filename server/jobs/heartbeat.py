"""A worker's sign of life, and its look at those of others."""

from __future__ import annotations

import logging
import time
from collections.abc import Set as AbstractSet
from datetime import timedelta

from sqlalchemy import Engine

from server.errors import ServerError
from server.jobs import queue
from server.jobs.settings import JobSettings
from server.tables import now
from shared.errors import WeftError

_log = logging.getLogger(__name__)


class Heartbeat:
    """Of one worker. `alone`: no other process uses the database."""

    def __init__(self, engine: Engine, jobs: JobSettings, alone: bool) -> None:
        self._engine, self._jobs, self._alone = engine, jobs, alone
        self._beaten = self._looked = time.monotonic()
        self.interval = jobs.lost_after / 6
        """Seconds between two beats."""

    def recover(self) -> None:
        """Queue again what dead workers ran; where we are alone, all that this process does not."""
        lost_before = None if self._alone else now() - timedelta(seconds=self._jobs.lost_after)
        dead = ServerError("interrupted", "the server stopped while the refinement ran")
        for refinement_id in queue.recover(self._engine, self._jobs.attempts, dead, lost_before):
            _log.info("refinement %d goes on from its checkpoint", refinement_id)
        self._looked = time.monotonic()

    def recover_in_time(self) -> None:
        """The same, where it is time to look at others again."""
        if not self._alone and time.monotonic() - self._looked > self._jobs.lost_after / 4:
            self.recover()

    def beat(self, running: AbstractSet[int]) -> AbstractSet[int]:
        """Show in time that we run these; returns those whose children must end.

        They were cancelled or taken over, or will soon be: the database is out of our reach.
        """
        silent = time.monotonic() - self._beaten
        if silent < self.interval:
            return frozenset()
        try:
            lost = queue.beat(self._engine, running) if running else frozenset[int]()
        except WeftError:
            if self._alone or silent < self._jobs.lost_after / 2:
                raise
            _log.warning("the database is out of reach: others take over what runs here")
            return running
        self._beaten = time.monotonic()
        return lost
