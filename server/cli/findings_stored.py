"""What `weft doctor` finds in what a server keeps: database, leases, blobs, and what got stuck."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta

from sqlalchemy import Engine, func, make_url, select, text
from sqlalchemy.orm import Session

from server import db
from server.auth.schemas import state_of
from server.backup.rows import named_blobs
from server.cli.findings import CLOCK_SKEW, Finding, of_error
from server.cli.findings_trust import signed
from server.settings import Settings
from server.storage import open_store
from server.storage.base import BlobStore
from server.tables import (
    NOT_TOLD,
    ApiKey,
    Delivery,
    Device,
    DeviceModel,
    Event,
    Lease,
    Package,
    Refinement,
    Rollout,
    Version,
    now,
)
from shared.errors import WeftError

#: Blobs that are read whole without --full: the newest packages, which devices ask for.
SAMPLE = 20

#: A lease of a process that died lies for this long before it is worth a word; so does other work.
FORGOTTEN = timedelta(minutes=5)
STUCK = timedelta(hours=1)

#: Updates of a device that failed in a row.
OFTEN = 3


def stored(settings: Settings, full: bool) -> Iterator[Finding]:
    """The checks of database and blobs; those of blobs need the rows that name them."""
    named: list[str] = []
    try:
        engine = db.open_existing(settings.url)
        try:
            yield from _database(engine, settings, full)
            with db.reading(engine) as session:
                yield from _leases(session)
                yield from _clock(session)
                yield from _stuck(session)
                yield _operators(session, settings)
                yield from signed(session, settings)
                named = _named(session)
        finally:
            engine.dispose()
    except WeftError as error:
        yield of_error("database", error)
    yield from _blobs(settings, named, full)


def _database(engine: Engine, settings: Settings, full: bool) -> Iterator[Finding]:
    db.check_current(engine)
    shown = make_url(settings.url).render_as_string(hide_password=True)
    yield Finding("database", "ok", f"{shown}, schema {db.known_revision()}")
    if full and settings.is_sqlite:
        with db.reading(engine) as session:
            found = session.execute(text("PRAGMA integrity_check(3)")).scalars().all()
        if found == ["ok"]:
            yield Finding("database file", "ok", "every page is sound")
        else:
            yield Finding("database file", "fail", "; ".join(found), "Restore a backup.")


def _leases(session: Session) -> Iterator[Finding]:
    """Duties that nobody does; one with long pauses lies without a lease while servers run."""
    live = list(
        session.scalars(select(Lease.name).where(Lease.until >= now()).order_by(Lease.name))
    )
    forgotten = select(Lease).where(Lease.until < now() - FORGOTTEN).order_by(Lease.name)
    for lease in [] if live else session.scalars(forgotten):
        found = f"{lease.name} of {lease.holder} ran out at {lease.until:%Y-%m-%d %H:%M}Z"
        todo = "Start a server: the one that had this duty died, and nobody has it now."
        yield Finding("lease", "warn", found, todo)
    yield Finding("leases", "ok", ", ".join(live) or "none held: no server runs")


def _clock(session: Session) -> Iterator[Finding]:
    """The machine's clock beside the database's, and beside what has been written already."""
    todo = "Set the clock, and let it keep time by NTP."
    if session.get_bind().dialect.name == "postgresql":
        theirs = session.scalar(select(func.clock_timestamp()))
        skew = abs(now() - theirs) if theirs else timedelta(0)
        if skew > CLOCK_SKEW:
            found = f"{skew.total_seconds():.0f} s away from the database's"
            yield Finding("clock", "warn", found, todo)
            return
    newest = session.scalar(select(func.max(Event.at)))
    if newest is not None and newest > now() + CLOCK_SKEW:
        yield Finding("clock", "warn", f"history goes on until {newest:%Y-%m-%d %H:%M}Z", todo)
        return
    yield Finding("clock", "ok", f"{now():%Y-%m-%d %H:%M:%S}Z")


def _stuck(session: Session) -> Iterator[Finding]:
    """Work that has waited for so long that somebody should look."""
    before = now() - STUCK
    silent = select(func.count()).where(
        Refinement.state == "running", func.coalesce(Refinement.heartbeat_at, before) <= before
    )
    what = "refinements running without a sign of life"
    yield _count(session.scalar(silent), "refinements", what, "Start a worker.")
    late = select(func.count()).where(Delivery.state == "pending", Delivery.due_at < before)
    todo = "Look at `weft webhooks`: is a server running, does the address answer?"
    yield _count(session.scalar(late), "webhooks", "deliveries overdue", todo)
    overdue = select(func.count()).where(Rollout.state == "active", Rollout.due_at < before)
    yield _count(session.scalar(overdue), "rollouts", "rollouts not looked at", "Start a server.")
    untold = select(func.count(DeviceModel.device_id.distinct())).where(
        DeviceModel.state == NOT_TOLD
    )
    found = session.scalar(untold)
    what = "devices silent since a restore"
    yield _count(found, "devices", what, "Wait for their next poll.")
    copied = session.scalar(select(func.count()).where(Device.standing == "cloned"))
    todo = "Look at them: `weft devices list --filter standing==cloned`."
    yield _count(copied, "copies", "devices whose key is in two of them", todo)
    waiting = session.scalar(select(func.count()).where(Device.standing == "pending"))
    todo = "Look at them: `weft devices list --filter standing==pending`."
    yield _count(waiting, "pending", "devices that wait to be accepted", todo)
    failing = select(func.count()).where(Device.failures >= OFTEN)
    found = session.scalar(failing)
    what = f"devices failed {OFTEN} times in a row"
    yield _count(found, "failures", what, "Look at them: `weft devices list`.")


def _operators(session: Session, settings: Settings) -> Finding:
    """Whether somebody can still make keys."""
    keys = session.scalars(select(ApiKey)).all()
    active = [key for key in keys if state_of(key) == "active"]
    admins = sum(key.role == "admin" for key in active)
    found = f"{len(active)} keys of operators, {admins} of them admins'"
    if keys and not admins and settings.admin_key is None and settings.require_keys:
        return Finding("operators", "fail", found, "Run `weft recover-key` on this machine.")
    return Finding("operators", "ok", found)


def _count(number: int | None, check: str, what: str, todo: str) -> Finding:
    if not number:
        return Finding(check, "ok", f"no {what}")
    return Finding(check, "warn", f"{number} {what}", todo)


def _named(session: Session) -> list[str]:
    """Every blob that a row names, those of the newest packages first."""
    found: dict[str, None] = {}
    for kind in (Package, Version):
        query = select(kind.__table__).order_by(kind.__table__.c.id.desc())
        for row in session.execute(query).mappings():
            found |= dict.fromkeys(named_blobs(kind.__tablename__, dict(row)))
    return list(found)


def _blobs(settings: Settings, named: list[str], full: bool) -> Iterator[Finding]:
    check = "blobs"
    try:
        if not settings.blobs and not settings.blobs_dir.is_dir() and not named:
            yield Finding(check, "ok", "none yet")
            return
        store = open_store(settings.model_copy(update={"blobs_create": False}), cached=False)
        there = set(store.kept_before(now() + timedelta(days=1)))
        missing = [sha256 for sha256 in named if sha256 not in there]
        if missing:
            found = f"{len(missing)} of {len(named)} are missing, first {missing[0]}"
            yield Finding(check, "fail", found, "Restore them from a backup.")
        else:
            yield Finding(check, "ok", f"{len(named)} named, {len(there)} in the store")
        yield _content(store, [sha256 for sha256 in named if sha256 in there], full)
    except WeftError as error:
        yield of_error(check, error)


def _content(store: BlobStore, named: list[str], full: bool) -> Finding:
    chosen = named if full else named[:SAMPLE]
    damaged = [sha256 for sha256 in chosen if _is_damaged(store, sha256)]
    if damaged:
        found = f"{len(damaged)} of {len(chosen)} read hold other bytes, first {damaged[0]}"
        return Finding("blob content", "fail", found, "Restore them from a backup.")
    return Finding("blob content", "ok", f"{len(chosen)} of {len(named)} read whole")


def _is_damaged(store: BlobStore, sha256: str) -> bool:
    digest = hashlib.sha256()
    try:
        for data in store.chunks(sha256):
            digest.update(data)
    except WeftError:
        return True
    return digest.hexdigest() != sha256
