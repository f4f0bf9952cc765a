"""What the history forgets: progress, when it is old. Results stay for ever.

Rows go in batches, each in a transaction of its own, so that nobody waits long. Keys of creates and
the log of deliveries go after a while, too: they serve requests and receivers of the last days.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Engine, delete, select, tuple_

from server import metrics
from server.db import BATCH_ROWS, reading, writing
from server.history.events import record
from server.tables import Delivery, Event, IdempotencyKey, Run, SignedReport, now

#: Kinds of events that tell of what is under way, not of what came of it.
PROGRESS: Final = (
    "assignment.idle",
    "assignment.waiting",
    "assignment.held",
    "assignment.offered",
    "assignment.downloading",
    "assignment.downloaded",
    "assignment.reconstituting",
    "assignment.staged",
    "assignment.swapping",
    "assignment.verifying",
    "assignment.deferred",
    "refinement.queued",
    "refinement.started",
    "refinement.interrupted",
)

#: States of reports that tell how an update ended.
RESULTS: Final = ("committed", "rolled_back", "failed", "aborted", "superseded")

KEEP_KEYS = timedelta(days=7)
KEEP_DELIVERIES = timedelta(days=30)


def expire_progress(engine: Engine, keep_days: int, at: datetime | None = None) -> int:
    """Remove events of progress that are older; 0 keeps them for ever. Returns how many."""
    if keep_days == 0:
        return 0
    before = (at or now()) - timedelta(days=keep_days)
    _expire_reports(engine, before)
    removed = _expire_events(engine, before)
    if removed:
        metrics.RETENTION_REMOVED.labels("event").inc(removed)
        with writing(engine) as session:
            told = {"events": removed, "before": before.isoformat(), "kinds": "progress"}
            record(session, "history.expired", told)
    return removed


def expire_keys(engine: Engine, at: datetime | None = None) -> int:
    """Forget the answers to creates of long ago. Returns how many."""
    old = IdempotencyKey.created_at < (at or now()) - KEEP_KEYS
    name = (IdempotencyKey.key, IdempotencyKey.method, IdempotencyKey.path)
    removed, part = 0, BATCH_ROWS
    while part == BATCH_ROWS:
        with reading(engine) as session:
            found = session.execute(select(*name).where(old).limit(BATCH_ROWS)).all()
        part = len(found)
        if part:
            with writing(engine, alone=False) as session:
                session.execute(delete(IdempotencyKey).where(tuple_(*name).in_(found)))
        removed += part
    return removed


def expire_deliveries(engine: Engine, at: datetime | None = None) -> int:
    """Forget deliveries that ended long ago. Returns how many."""
    ended = Delivery.finished_at < (at or now()) - KEEP_DELIVERIES
    removed, part = 0, BATCH_ROWS
    while part == BATCH_ROWS:
        with reading(engine) as session:
            ids = list(session.scalars(select(Delivery.id).where(ended).limit(BATCH_ROWS)))
        part = len(ids)
        if part:
            with writing(engine, alone=False) as session:
                session.execute(delete(Delivery).where(Delivery.id.in_(ids), ended))
        removed += part
    return removed


def _expire_events(engine: Engine, before: datetime) -> int:
    """One pass over the old events, in the order of their ids."""
    removed, last, part = 0, 0, BATCH_ROWS
    while part == BATCH_ROWS:
        with reading(engine) as session:
            query = select(Event.id).where(_is_old_progress(before), Event.id > last)
            ids = list(session.scalars(query.order_by(Event.id).limit(BATCH_ROWS)))
        part = len(ids)
        if part:
            last = ids[-1]
            with writing(engine, alone=False) as session:
                session.execute(delete(Event).where(Event.id.in_(ids)))
        removed += part
    return removed


def _expire_reports(engine: Engine, before: datetime) -> None:
    """Remove old signed reports of progress, but those that tell of what was in use."""
    began = select(Run.id).where(Run.report_id == SignedReport.id).exists()
    old = (SignedReport.at < before) & SignedReport.state.not_in(RESULTS) & ~began
    part = BATCH_ROWS
    while part == BATCH_ROWS:
        with reading(engine) as session:
            ids = list(session.scalars(select(SignedReport.id).where(old).limit(BATCH_ROWS)))
        part = len(ids)
        if part:
            metrics.RETENTION_REMOVED.labels("report").inc(part)
            with writing(engine, alone=False) as session:
                session.execute(delete(SignedReport).where(SignedReport.id.in_(ids)))


def _is_old_progress(before: datetime) -> ColumnElement[bool]:
    return Event.kind.in_(PROGRESS) & (Event.at < before)
