"""Makes restored rows fit the present: devices, webhooks and dashboards have seen later ones.

- the epoch is new, so that no ETag of before means anything, and every device polls anew
- ids go on far ahead: one that was given out after the backup must not come again
- the order of events is by id: transaction numbers of another database mean nothing
- nobody holds a lease; a refinement that ran is queued again
- an open assignment waits to be planned, its deadlines counted from now: nobody was silent; it is a
  new attempt: the device may have finished it meanwhile, for good or bad
- what devices hold is unknown until they have said it again
- signed metadata are due: later ones may have been published, and devices refuse to go back
"""

from __future__ import annotations

import secrets
from typing import Any, Final

from sqlalchemy import BigInteger, Table, delete, func, select, text, update
from sqlalchemy.orm import Session

from server.backup.folder import Manifest
from server.backup.rows import tables
from server.history.events import record
from server.history.order import number_by_ids
from server.tables import (
    NOT_TOLD,
    Assignment,
    DeviceModel,
    Installation,
    Lease,
    Refinement,
    Rollout,
    TrustMetadata,
    now,
)

#: More ids than a fleet uses between two backups; the larger one for events.
IDS_AHEAD: Final = 10_000_000
BIG_IDS_AHEAD: Final = 1_000_000_000

_UNPLANNED: Final[dict[str, Any]] = {
    "state": "idle",
    "held": None,
    "held_detail": None,
    "package_id": None,
    "chain": None,
    "size_bytes": None,
    "offered_at": None,
    "reached_at": None,
}


def adjust(session: Session, manifest: Manifest) -> None:
    """Do all of that, and write it down, in the caller's transaction."""
    session.execute(delete(Installation))
    session.add(Installation(id=1, epoch=secrets.token_hex(4)))
    session.execute(delete(Lease))
    number_by_ids(session)
    _requeue(session)
    _replan(session)
    session.execute(update(DeviceModel).values(state=NOT_TOLD))
    in_use = update(TrustMetadata).where(TrustMetadata.due_at.is_not(None))
    session.execute(in_use.values(due_at=TrustMetadata.created_at))
    for table in tables():
        if table.autoincrement_column is not None:
            _jump(session, table)
    told = {"taken_at": manifest.taken_at.isoformat(), "epoch": manifest.epoch}
    record(session, "installation.restored", told)


def _requeue(session: Session) -> None:
    running = update(Refinement).where(Refinement.state == "running")
    session.execute(running.values(state="queued", worker=None, heartbeat_at=None, progress=None))


def _replan(session: Session) -> None:
    still = Assignment.finished_at.is_(None) & (Assignment.state != "waiting")
    # A device that finished it after the backup would else take it for what it is done with.
    once_more = {"admitted_at": now(), "attempts": Assignment.attempts + 1}
    session.execute(update(Assignment).where(still).values(**once_more, **_UNPLANNED))
    active = Rollout.finished_at.is_(None)
    session.execute(update(Rollout).where(active).values(due_at=now()))
    soaking = active & Rollout.phase_done_at.is_not(None)
    session.execute(update(Rollout).where(soaking).values(phase_done_at=now()))


def _jump(session: Session, table: Table) -> None:
    """Let the next id of `table` be far above all that there are."""
    column = table.autoincrement_column
    assert column is not None
    ahead = BIG_IDS_AHEAD if isinstance(column.type, BigInteger) else IDS_AHEAD
    last = (session.scalar(select(func.max(column))) or 0) + ahead
    name = {"name": table.name, "last": last}
    if session.get_bind().dialect.name == "postgresql":
        sequence = "pg_get_serial_sequence(:name, :column)"
        session.execute(text(f"SELECT setval({sequence}, :last)"), {**name, "column": column.name})
        return
    session.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), name)
    session.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"), name)
