"""Has packages built in the background, each once, so that no poll waits for a build.

Several server processes may have the same package built: each builds the same bytes, and the one
that comes second finds the package published.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Engine

from server.db import reading
from server.planner.plan import Wanted
from server.publish.automatic import missing_packages
from shared.errors import WeftError

log = logging.getLogger("weft.rollouts")

Build = Callable[[Wanted], object]

#: Seconds until a build that failed is tried again, doubled with each failure, and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 30.0, 3600.0


class Building:
    """Calls `build` for what is asked for; a wish that is under way is not taken twice.

    A build that fails is logged, and tried again when it is asked for after a growing pause: the
    polls of a fleet ask all the time.
    """

    def __init__(self, build: Build, clock: Callable[[], float] = time.monotonic) -> None:
        self._build, self._clock = build, clock
        self._under_way: set[Wanted] = set()
        self._failed: dict[Wanted, tuple[int, float]] = {}
        """How often in a row, and when it may be tried again."""
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(1, "package-build")

    def ask(self, wanted: Wanted) -> None:
        """Have the package built; returns at once."""
        with self._lock:
            if wanted in self._under_way or self._pauses(wanted):
                return
            self._under_way.add(wanted)
        self._threads.submit(self._run, wanted)

    def unbuildable(self) -> frozenset[Wanted]:
        """What failed, and is not tried again yet."""
        with self._lock:
            return frozenset(wanted for wanted in self._failed if self._pauses(wanted))

    def close(self) -> None:
        """Let the build that runs end, and drop those that wait."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _pauses(self, wanted: Wanted) -> bool:
        _, until = self._failed.get(wanted, (0, 0.0))
        return self._clock() < until

    def _run(self, wanted: Wanted) -> None:
        ended_well = False
        try:
            self._build(wanted)
            ended_well = True
        except WeftError as error:
            log.error("%s for version id %d: %s", wanted.method, wanted.version_id, error)
        except Exception:
            log.exception("%s for version id %d", wanted.method, wanted.version_id)
        finally:
            with self._lock:
                self._under_way.discard(wanted)
                self._note(wanted, ended_well)

    def _note(self, wanted: Wanted, ended_well: bool) -> None:
        times, _ = self._failed.pop(wanted, (0, 0.0))
        if not ended_well:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**times)
            self._failed[wanted] = (times + 1, self._clock() + pause)


def order_missing(engine: Engine, building: Building) -> None:
    """Ask for the packages that are made without anybody asking."""
    paused = {(w.version_id, w.base_id) for w in building.unbuildable() if w.base_id is not None}
    with reading(engine) as session:
        missing = missing_packages(session, paused)
    for target_id, base_id in missing:
        building.ask(Wanted(target_id, base_id))
