"""`weft worker`: a process that runs refinements, and serves nobody."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from server import logs
from server.cli.options import Json
from server.cli.output import show_record
from server.cli.serve import DataDir
from server.settings import Settings, load_settings
from shared.errors import BadConfig


def worker(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Run refinements until Ctrl-C, beside servers that use the same PostgreSQL database."""
    from server.jobs.queue import WORKER
    from server.jobs.settings import load_job_settings

    settings = load_settings(**({"data_dir": data_dir} if data_dir else {}))
    if settings.is_sqlite:
        text = "WEFT_DATABASE_URL: a worker needs PostgreSQL; SQLite serves one process at a time"
        raise BadConfig("invalid", text)
    jobs = load_job_settings()
    if not jobs.at_once:
        raise BadConfig("invalid", "WEFT_JOBS_AT_ONCE: a worker runs at least one refinement")
    logs.set_up(settings.log_format, settings.log_level)
    with _asked_to_end() as asked, _running(settings):
        show_record({"worker": WORKER, "at_once": jobs.at_once}, as_json)
        asked.wait()


@contextmanager
def _running(settings: Settings) -> Iterator[None]:
    """A supervisor of refinements for the length of a with-block."""
    from server.db import open_current
    from server.jobs.supervisor import Supervisor
    from server.publish.refinement import RefinementWork
    from server.storage import open_store

    with ExitStack() as stack:
        engine = open_current(settings.url, settings.auto_migrate, settings.database_connections)
        stack.callback(engine.dispose)
        work = RefinementWork(settings, engine, open_store(settings))
        supervisor = Supervisor(settings, engine, work)
        supervisor.start()
        stack.callback(supervisor.stop)
        yield


@contextmanager
def _asked_to_end() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set."""
    asked = threading.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
