"""The queue: what a refinement's row says, and every change of it but success.

    queued -> running -> succeeded        (`Work.finish`, with the results, in one transaction)
                      -> failed
                      -> queued           the server was stopped, or the child died: once more
    queued, running   -> cancelled

Every change looks at the state under the row's lock, so that of two that race one wins, and the
row is always right: what a process does follows the row.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import CursorResult, Engine, select, update
from sqlalchemy.orm import Session

from server.db import reading, writing
from server.history.events import record
from server.tables import Refinement, now
from shared.errors import WeftError

OPEN = ("queued", "running")


def describe(error: WeftError) -> dict[str, str]:
    """The error as rows and answers hold it."""
    return {"code": error.code, "message": error.message, "todo": error.todo}


def claim(engine: Engine) -> int | None:
    """Set the oldest queued refinement to `running`, count the attempt, and return its id."""
    with writing(engine) as session:
        oldest = select(Refinement).where(Refinement.state == "queued").order_by(Refinement.id)
        row = session.scalars(oldest.limit(1).with_for_update(skip_locked=True)).first()
        if row is None:
            return None
        row.state, row.attempts = "running", row.attempts + 1
        row.started_at = row.started_at or now()
        record_event(session, "refinement.started", row, attempt=row.attempts)
        return row.id


def recover(engine: Engine, attempts: int, error: WeftError) -> list[int]:
    """At the server's start: queue what was running, or fail what was started too often.

    Returns the ids that go on. Only the process that owns the queue may call it: to it, a running
    refinement without a child of its own is one whose server died.
    """
    with writing(engine) as session:
        rows = session.scalars(select(Refinement).where(Refinement.state == "running")).all()
        return [row.id for row in rows if _once_more(session, row, attempts, error)]


def retry(engine: Engine, refinement_id: int, attempts: int, error: WeftError) -> bool:
    """Queue a running refinement once more, or fail it with `error`; whether it was queued."""
    with writing(engine) as session:
        row = session.get(Refinement, refinement_id, with_for_update=True)
        if row is None or row.state != "running":
            return False
        return _once_more(session, row, attempts, error)


def _once_more(session: Session, row: Refinement, attempts: int, error: WeftError) -> bool:
    if row.attempts >= attempts:
        _end(session, row, "failed", describe(error))
        return False
    row.state = "queued"
    record_event(session, "refinement.interrupted", row, attempt=row.attempts, code=error.code)
    return True


def release(engine: Engine, refinement_id: int) -> None:
    """Queue a running refinement whose child was stopped in order: the attempt does not count."""
    with writing(engine) as session:
        row = session.get(Refinement, refinement_id, with_for_update=True)
        if row is not None and row.state == "running":
            row.state, row.attempts = "queued", row.attempts - 1


def store_progress(engine: Engine, refinement_id: int, progress: dict[str, Any]) -> bool:
    """Keep the newest progress; False where the refinement is not running any more."""
    with writing(engine) as session:
        result = session.execute(
            update(Refinement)
            .where(Refinement.id == refinement_id, Refinement.state == "running")
            .values(progress=progress)
        )
        assert isinstance(result, CursorResult)
        return bool(result.rowcount == 1)


def fail(engine: Engine, refinement_id: int, error: dict[str, str]) -> None:
    """End a running refinement with an error."""
    with writing(engine) as session:
        row = session.get(Refinement, refinement_id, with_for_update=True)
        if row is not None and row.state == "running":
            _end(session, row, "failed", error)


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
