"""The work of the duty `retention`: everything that is removed because of its age."""

from __future__ import annotations

from sqlalchemy import Engine

from server.history.retention import expire_deliveries, expire_keys, expire_progress
from server.publish.expiry import expire_packages
from server.publish.orphans import remove_orphans
from server.settings import Settings
from server.storage.base import BlobStore

#: Seconds between two turns.
INTERVAL = 3600.0


def keep_house(engine: Engine, blobs: BlobStore, settings: Settings) -> None:
    """One turn. Each step is complete in itself: the next turn goes on where this one failed."""
    expire_progress(engine, settings.keep_progress_days)
    expire_keys(engine)
    expire_deliveries(engine)
    expire_packages(engine, blobs, settings.keep_packages_days, settings.keep_versions)
    remove_orphans(engine, blobs)
