"""Blobs that no row names: what a crash between the store and the transaction leaves behind.

A row whose blob was removed for its age names it no more.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from server.db import reading
from server.errors import BlobError
from server.storage.base import BlobStore
from server.tables import STATISTICS_BLOB, Package, Version, now

log = logging.getLogger("weft.blobs")

#: Younger blobs may belong to a transaction that is still to come, of this process or another.
MIN_AGE = timedelta(minutes=30)


def remove_orphans(engine: Engine, blobs: BlobStore, min_age: timedelta = MIN_AGE) -> int:
    """Remove blobs of at least `min_age` that no row names; returns how many.

    Where the database names no blob at all nothing is removed: it may be a new one that was put
    beside an old store by mistake.
    """
    before = now() - min_age
    return remove_unnamed(engine, blobs, set(blobs.kept_before(before)), before)


def remove_unnamed(engine: Engine, blobs: BlobStore, old: Collection[str], before: datetime) -> int:
    """Remove those of these blobs that no row names; returns how many.

    One that was kept again since `before` is left: somebody publishes the same bytes once more,
    whose row is still to come.
    """
    if not old:
        return 0
    with reading(engine) as session:
        named = _named(session)
    orphans = set(old) - named if named else set()
    return sum(_remove(blobs, sha256, before) for sha256 in sorted(orphans))


def _remove(blobs: BlobStore, sha256: str, before: datetime) -> bool:
    try:
        if blobs.kept_at(sha256) >= before:
            return False
    except BlobError:  # it is gone
        return False
    blobs.delete(sha256)
    log.info("removed the blob %s, which no row names", sha256)
    return True


def _named(session: Session) -> set[str | None]:
    """Every blob that a row names."""
    queries = (
        select(Version.blob).where(Version.removed_at.is_(None)),
        select(Version.metrics[STATISTICS_BLOB].as_string()).where(Version.removed_at.is_(None)),
        select(Package.sha256).where(Package.state != "removed"),
    )
    return {sha256 for query in queries for sha256 in session.scalars(query)}
