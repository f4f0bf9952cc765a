"""Duties: what one server process at a time does in the background, again and again.

Several processes may serve one database; a duty (evaluating rollouts, delivering to webhooks,
retention) is done by the one that holds its lease, a row that it renews. When that process dies,
another one takes the duty over as soon as the lease has run out; one that stops gives it back.

A lease makes doubled work rare, not impossible (a process may be stopped for longer than its lease
lasts), so a duty must stay right when two do it at once.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import CursorResult, Engine, delete, update
from sqlalchemy.exc import IntegrityError

from server import metrics
from server.db import writing
from server.tables import Lease, now

log = logging.getLogger("weft.duties")

#: How long a lease lasts without renewal; it is renewed after a third of that.
LEASE_SECONDS = 15.0

#: Of this process: its machine, its id there, and what makes it another one after a restart.
HOLDER = f"{socket.gethostname()[:60]}-{os.getpid()}-{secrets.token_hex(6)}"


def hold(
    engine: Engine,
    name: str,
    holder: str = HOLDER,
    seconds: float = LEASE_SECONDS,
    at: datetime | None = None,
) -> bool:
    """Take the lease, or renew it; False while another holder has it. Raises DatabaseError."""
    moment = at or now()
    values = {"holder": holder, "until": moment + timedelta(seconds=seconds)}
    ours = (Lease.holder == holder) | (Lease.until <= moment)
    try:
        with writing(engine, alone=False) as session:
            taken = session.execute(update(Lease).where(Lease.name == name, ours).values(**values))
            assert isinstance(taken, CursorResult)
            if taken.rowcount:
                return True
            if session.get(Lease, name) is not None:
                return False
            session.add(Lease(name=name, **values))
    except IntegrityError:  # another process was first
        return False
    return True


def release(engine: Engine, name: str, holder: str = HOLDER) -> None:
    """Give the lease back, so that another process need not wait."""
    with writing(engine, alone=False) as session:
        session.execute(delete(Lease).where(Lease.name == name, Lease.holder == holder))


def release_all(engine: Engine) -> None:
    """End all leases, at the start of the only process there is: a killed one left them."""
    with writing(engine) as session:
        session.execute(delete(Lease))


class Duty:
    """Runs `work` every `interval` seconds, and when it is rung, in a thread of its own.

    An error in `work` is logged, and the work tried again at the next turn.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        interval: float,
        work: Callable[[], object],
        lease_seconds: float | None = None,
    ) -> None:
        self.name = name
        self._lease = timedelta(seconds=lease_seconds or LEASE_SECONDS)
        self._engine = engine
        self._interval = interval
        self._work = work
        self._bell = threading.Event()
        self._stopping = False
        self._renewed: datetime | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin in the background."""
        self._thread.start()

    def ring(self) -> None:
        """Have the work done soon, without waiting for the interval."""
        self._bell.set()

    def stop(self) -> None:
        """Let the turn under way end, and give the lease back."""
        self._stopping = True
        self._bell.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            try:
                if self._has_duty():
                    self._work()
            except Exception:
                log.exception("%s failed; it is tried again", self.name)
                metrics.DUTY_FAILURES.labels(self.name).inc()
            self._bell.wait(self._interval)
            self._bell.clear()
        try:
            release(self._engine, self.name)
        except Exception:
            log.exception("the lease of %s runs out by itself", self.name)

    def _has_duty(self) -> bool:
        moment = now()
        if self._renewed and moment - self._renewed < self._lease / 3:
            return True
        seconds = self._lease.total_seconds()
        held = hold(self._engine, self.name, seconds=seconds, at=moment)
        self._renewed = moment if held else None
        return self._renewed is not None
