"""Has packages built in the background, each once, so that no poll waits for a build."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from server.planner.plan import FullPackage
from shared.errors import WeftError

log = logging.getLogger("weft.rollouts")

Build = Callable[[FullPackage], object]


class Building:
    """Calls `build` for what is asked for; a wish that is under way is not taken twice.

    A build that fails is logged; the next poll of a device that needs the package asks again.
    """

    def __init__(self, build: Build) -> None:
        self._build = build
        self._under_way: set[FullPackage] = set()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(1, "package-build")

    def ask(self, wanted: FullPackage) -> None:
        """Have the package built; returns at once."""
        with self._lock:
            if wanted in self._under_way:
                return
            self._under_way.add(wanted)
        self._threads.submit(self._run, wanted)

    def close(self) -> None:
        """Let the build that runs end, and drop those that wait."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _run(self, wanted: FullPackage) -> None:
        try:
            self._build(wanted)
        except WeftError as error:
            log.error("package for version id %d: %s", wanted.version_id, error)
        except Exception:
            log.exception("package for version id %d", wanted.version_id)
        finally:
            with self._lock:
                self._under_way.discard(wanted)
