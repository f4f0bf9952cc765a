"""The queue: what a refinement's row says, and every change of it but success.

A running refinement belongs to a worker, which shows every few seconds that it lives. Where it
does not, another one takes over; the first, should it come back, changes nothing any more.

    queued -> running -> succeeded        (`Work.finish`, with the results, in one transaction)
                      -> failed
                      -> queued           the server was stopped, or the child died: once more
    queued, running   -> cancelled

Of two changes that race one wins, and the row is always right: what a process does follows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, Engine, or_, select, update
from sqlalchemy.orm import Session

from server.db import reading, writing
from server.duties import HOLDER
from server.history.events import record
from server.tables import Refinement, now
from shared.errors import WeftError

OPEN = ("queued", "running")

#: This process, as the rows of what it runs name it.
WORKER = HOLDER


def describe(error: WeftError) -> dict[str, str]:
    """The error as rows and answers hold it."""
    return {"code": error.code, "message": error.message, "todo": error.todo}


def claim(engine: Engine, worker: str = WORKER) -> int | None:
    """Set the oldest queued refinement to `running`, count the attempt, and return its id."""
    oldest = select(Refinement).where(Refinement.state == "queued").order_by(Refinement.id).limit(1)
    with reading(engine) as session:  # most often there is nothing, and nobody need wait
        if session.scalar(oldest) is None:
            return None
    with writing(engine) as session:
        row = session.scalar(oldest)
        if row is None:
            return None
        row.state, row.attempts = "running", row.attempts + 1
        row.worker, row.heartbeat_at = worker, now()
        row.started_at = row.started_at or now()
        record_event(session, "refinement.started", row, attempt=row.attempts)
        return row.id


def recover(
    engine: Engine, attempts: int, error: WeftError, lost_before: datetime | None = None
) -> list[int]:
    """Queue what no worker runs any more, or fail what was started too often.

    Returns the ids that go on. Given up are the rows of workers that were last heard of before
    `lost_before`. Without it all that are not of this process: the caller knows it to be alone.
    """
    gone: list[ColumnElement[bool]] = [Refinement.worker.is_(None)]
    if lost_before is None:
        gone.append(Refinement.worker != WORKER)
    else:
        gone += [Refinement.heartbeat_at.is_(None), Refinement.heartbeat_at < lost_before]
    left = select(Refinement).where(Refinement.state == "running", or_(*gone))
    with reading(engine) as session:
        if session.scalar(left.limit(1)) is None:
            return []
    with writing(engine) as session:
        rows = session.scalars(left).all()
        return [row.id for row in rows if _once_more(session, row, attempts, error)]


def beat(engine: Engine, running: Iterable[int], worker: str = WORKER) -> set[int]:
    """Show that the worker lives and runs these; returns those that it has lost or must end."""
    wanted = set(running)
    with writing(engine, alone=False) as session:
        ours = (Refinement.worker == worker) & (Refinement.state == "running")
        mine = update(Refinement).where(Refinement.id.in_(wanted), ours)
        kept = session.scalars(mine.values(heartbeat_at=now()).returning(Refinement.id)).all()
    return wanted - set(kept)


def retry(
    engine: Engine, refinement_id: int, attempts: int, error: WeftError, worker: str = WORKER
) -> bool:
    """Queue a running refinement once more, or fail it with `error`; whether it was queued."""
    with writing(engine) as session:
        row = _running(session, refinement_id, worker)
        return row is not None and _once_more(session, row, attempts, error)


def _once_more(session: Session, row: Refinement, attempts: int, error: WeftError) -> bool:
    if row.attempts >= attempts:
        _end(session, row, "failed", describe(error))
        return False
    row.state, row.worker, row.heartbeat_at = "queued", None, None
    record_event(session, "refinement.interrupted", row, attempt=row.attempts, code=error.code)
    return True


def release(engine: Engine, refinement_id: int, worker: str = WORKER) -> None:
    """Queue a running refinement whose child was stopped in order: the attempt does not count."""
    with writing(engine) as session:
        row = _running(session, refinement_id, worker)
        if row is not None:
            row.state, row.attempts = "queued", row.attempts - 1
            row.worker, row.heartbeat_at = None, None


def store_progress(
    engine: Engine, refinement_id: int, progress: dict[str, Any], worker: str = WORKER
) -> bool:
    """Keep the newest progress; False where the worker does not run the refinement any more.

    A `curve` in it is kept for itself: it outlives the progress that follows.
    """
    told = {name: value for name, value in progress.items() if name != "curve"}
    kept = {"curve": progress["curve"]} if "curve" in progress else {}
    with writing(engine, alone=False) as session:
        result = session.execute(
            update(Refinement)
            .where(
                Refinement.id == refinement_id,
                Refinement.state == "running",
                Refinement.worker == worker,
            )
            .values(progress=told, **kept)
        )
        assert isinstance(result, CursorResult)
        return bool(result.rowcount == 1)


def fail(engine: Engine, refinement_id: int, error: dict[str, str], worker: str = WORKER) -> None:
    """End a running refinement with an error."""
    with writing(engine) as session:
        row = _running(session, refinement_id, worker)
        if row is not None:
            _end(session, row, "failed", error)


def _running(session: Session, refinement_id: int, worker: str) -> Refinement | None:
    """The refinement, where this worker runs it."""
    row = session.get(Refinement, refinement_id)
    return row if row and is_ours(row, worker) else None


def is_ours(row: Refinement, worker: str = WORKER) -> bool:
    """Whether the worker runs the refinement and may end it, as its row says."""
    return row.state == "running" and row.worker in (None, worker)


def cancel(session: Session, row: Refinement) -> bool:
    """End an open refinement in the caller's transaction; False where it has ended already."""
    if row.state not in OPEN:
        return False
    _end(session, row, "cancelled", None)
    return True


def state_of(engine: Engine, refinement_id: int) -> str | None:
    """The refinement's state, or None where there is none of that id."""
    with reading(engine) as session:
        return session.scalar(select(Refinement.state).where(Refinement.id == refinement_id))


def worker_of(engine: Engine, refinement_id: int) -> str | None:
    """Who runs the refinement, or ran it at its end."""
    with reading(engine) as session:
        return session.scalar(select(Refinement.worker).where(Refinement.id == refinement_id))


def record_event(session: Session, kind: str, row: Refinement, **data: Any) -> None:
    """Write down what happened to a refinement, in the caller's transaction."""
    ids = {
        "model_id": row.model_id,
        "version_id": row.target_version_id,
        "package_id": row.package_id,
        "refinement_id": row.id,
    }
    record(session, kind, data, **ids)


def _end(session: Session, row: Refinement, state: str, error: dict[str, str] | None) -> None:
    row.state, row.error, row.finished_at = state, error, now()
    record_event(session, f"refinement.{state}", row, **({"code": error["code"]} if error else {}))
