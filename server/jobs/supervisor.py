"""Takes refinements from the queue, runs each in a child process, and sees it to its end.

One thread watches the queue; each running refinement has a thread that reads its child's
progress. Training therefore never holds up a request, and a crash of the training never takes the
server along. Decisions are in `queue`; this module starts, reads and ends.

Several processes may take from one queue. Each shows that it lives; what a dead one ran is taken
over. One that cannot reach the database ends its children before others think it dead.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from server.errors import DatabaseError, ServerError
from server.jobs import queue
from server.jobs.child import LOG_NAME, Child
from server.jobs.heartbeat import Heartbeat
from server.jobs.settings import JobSettings, load_job_settings
from server.jobs.work import Work
from server.settings import Settings
from shared.errors import WeftError

#: Seconds after which the queue is looked at even though nobody rang.
QUEUE_INTERVAL = 2.0

#: What stays in the folder of a refinement that has ended, for whoever wants to know why.
KEPT = frozenset({LOG_NAME, "spec.json", "error.json", "result.json"})

_log = logging.getLogger(__name__)


class Supervisor:
    """The queue's worker; `start` and `stop` frame the server's life."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        work: Work,
        jobs: JobSettings | None = None,
    ) -> None:
        self._folder, self._engine = settings.jobs_dir, engine
        self._stores = any("://" in root for root in settings.dataset_roots)
        self._work, self._jobs = work, jobs or load_job_settings()
        self._heart = Heartbeat(engine, self._jobs, alone=settings.is_sqlite)
        self._lock = threading.Lock()
        self._children: dict[int, Child] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._watch_queue, name="refinements", daemon=True)

    def start(self) -> None:
        """Take up what a dead process left, and begin to watch the queue."""
        if self._jobs.at_once:
            self._heart.recover()
            self._watch.start()

    def stop(self) -> None:
        """End all children and wait for their threads; what ran is queued for the next start."""
        self._stopping.set()
        self._bell.set()
        if self._watch.is_alive():
            self._watch.join()
        with self._lock:
            children, threads = list(self._children.values()), list(self._threads.values())
        for child in children:
            child.stop(self._jobs.grace)
        for thread in threads:
            thread.join()

    def wake(self) -> None:
        """Look at the queue now: something was put into it."""
        self._bell.set()

    def cancel(self, refinement_id: int) -> None:
        """End the child of a refinement whose row says `cancelled`, if it runs here.

        The worker that runs it elsewhere sees the row within seconds, and tidies.
        """
        with self._lock:
            child = self._children.get(refinement_id)
            begun = refinement_id in self._threads
        if child is not None:
            child.stop(self._jobs.grace)
        elif not begun and queue.worker_of(self._engine, refinement_id) is None:
            self._tidy(refinement_id, self._folder / str(refinement_id))

    def _watch_queue(self) -> None:
        while not self._stopping.is_set():
            self._bell.clear()
            try:
                self._beat()
                self._heart.recover_in_time()
                self._start_queued()
            except Exception:  # whatever it is: nobody else looks at the queue
                _log.exception("the queue of refinements cannot be read; it is tried again")
            self._bell.wait(min(QUEUE_INTERVAL, self._heart.interval))

    def _beat(self) -> None:
        with self._lock:
            children = dict(self._children)
        for refinement_id in self._heart.beat(children.keys()):
            children[refinement_id].stop(self._jobs.grace)

    def _start_queued(self) -> None:
        while not self._stopping.is_set() and len(self._threads) < self._jobs.at_once:
            refinement_id = queue.claim(self._engine)
            if refinement_id is None:
                return
            thread = threading.Thread(
                target=self._see_through, args=[refinement_id], name=f"refinement-{refinement_id}"
            )
            with self._lock:
                self._threads[refinement_id] = thread
            thread.start()

    def _see_through(self, refinement_id: int) -> None:
        """One attempt at one refinement, whatever becomes of it."""
        folder = self._folder / str(refinement_id)
        try:
            self._attempt(refinement_id, folder)
        except DatabaseError as error:
            # What the child made is in its folder: the next start takes it up from there.
            self._retry(refinement_id, error)
        except WeftError as error:
            self._fail(refinement_id, queue.describe(error))
        except Exception:
            _log.exception("refinement %d failed inside the server", refinement_id)
            ours = ServerError("internal", f"refinement {refinement_id} failed inside the server")
            self._fail(refinement_id, queue.describe(ours))
        finally:
            self._tidy(refinement_id, folder)
            with self._lock:
                del self._threads[refinement_id]
            self._bell.set()

    def _attempt(self, refinement_id: int, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.json").unlink(missing_ok=True)
        command = self._work.prepare(refinement_id, folder)
        status = self._run(refinement_id, command, folder)
        if status == 0:
            self._work.finish(refinement_id, folder)
        elif self._stopping.is_set():
            queue.release(self._engine, refinement_id)
        elif (error := _read_error(folder)) is not None:
            self._fail(refinement_id, error)
        else:
            died = ServerError("worker_failed", f"the refinement's process {_ending(status)}")
            self._retry(refinement_id, died)

    def _run(self, refinement_id: int, command: list[str], folder: Path) -> int:
        """Run the child to its end, storing its progress, and return its exit status."""
        with self._lock:
            child = Child(command, folder, self._jobs.nice, self._stores)
            self._children[refinement_id] = child
        try:
            # A cancel or a stop may have come before the child could be found.
            wanted = queue.state_of(self._engine, refinement_id) == "running"
            if self._stopping.is_set() or not wanted:
                child.stop(self._jobs.grace)
            self._store_progress(refinement_id, child)
            return child.wait()
        except BaseException:
            child.stop(self._jobs.grace)
            child.wait()
            raise
        finally:
            with self._lock:
                del self._children[refinement_id]

    def _store_progress(self, refinement_id: int, child: Child) -> None:
        """Store the child's progress: each new stage at once, else no more often than set."""
        stage, last = None, 0.0
        for progress in child.progress():
            if progress.get("stage") == stage and time.monotonic() - last < self._interval:
                continue
            stage, last = progress.get("stage"), time.monotonic()
            if not self._keep(refinement_id, progress):
                child.stop(self._jobs.grace)

    @property
    def _interval(self) -> float:
        return self._jobs.progress_interval

    def _keep(self, refinement_id: int, progress: dict[str, Any]) -> bool:
        """Whether the child should go on; a busy database is no reason to end a training."""
        try:
            return queue.store_progress(self._engine, refinement_id, progress)
        except WeftError as error:
            _log.warning("progress of refinement %d is not stored: %s", refinement_id, error)
            return True

    def _fail(self, refinement_id: int, error: dict[str, str]) -> None:
        self._store(lambda: queue.fail(self._engine, refinement_id, error))

    def _retry(self, refinement_id: int, error: WeftError) -> None:
        attempts = self._jobs.attempts
        self._store(lambda: queue.retry(self._engine, refinement_id, attempts, error))

    def _store(self, change: Callable[[], object]) -> None:
        """Change a row. A database that refuses is asked again: else the row runs for ever.

        Where the server stops first, the row stays `running`, and the next start takes it up.
        """
        while True:
            try:
                change()
            except Exception:
                _log.exception("the end of a refinement could not be stored; it is tried again")
            else:
                return
            if self._stopping.wait(QUEUE_INTERVAL):
                return

    def _tidy(self, refinement_id: int, folder: Path) -> None:
        """Drop the weights and checkpoints of a refinement that will not be started again."""
        try:
            if queue.state_of(self._engine, refinement_id) in queue.OPEN or not folder.is_dir():
                return
            for path in folder.iterdir():
                if path.name not in KEPT:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        except (WeftError, OSError):
            _log.exception("the folder of refinement %d could not be tidied", refinement_id)


def _read_error(folder: Path) -> dict[str, str] | None:
    """What the child says went wrong, if it came to saying it."""
    try:
        found = json.loads((folder / "error.json").read_text())
        return {name: str(found[name]) for name in ("code", "message", "todo")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _ending(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
