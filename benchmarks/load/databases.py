"""Databases to load: SQLite files, and a private PostgreSQL of the kind that the tests use."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sqlalchemy import create_engine, text

from server.db import migrate
from tests.postgres import OPTIONS, Cluster, Postgres

KINDS = ("sqlite", "postgresql")

#: Unlike in the tests, what is committed is on the disk, as SQLite does it here (synchronous=FULL).
SAFE = {
    **OPTIONS,
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "autovacuum": "on",
    "shared_buffers": "128MB",
}


@dataclass(frozen=True)
class Site:
    """A server's data folder, and its database."""

    folder: Path
    url: str


class Databases(Protocol):
    """Databases of one kind, in a temporary folder."""

    def create(self) -> Site:
        """A migrated, empty one."""

    def copy(self, site: Site) -> Site:
        """A copy of one that no server uses, with its data folder."""

    def drop(self, site: Site) -> None:
        """Remove one that no server uses."""

    def size(self, site: Site) -> int:
        """Bytes of its tables and indexes."""


@contextmanager
def databases(kind: str, folder: Path) -> Iterator[Databases]:
    """The databases of that kind, for the length of a with-block."""
    if kind == "sqlite":
        yield _Sqlite(folder)
        return
    postgres = Postgres(SAFE)
    try:
        yield _Postgresql(folder, Cluster(postgres.url))
    finally:
        postgres.stop()


class _Sqlite:
    def __init__(self, folder: Path) -> None:
        self._folder, self._made = folder, 0

    def create(self) -> Site:
        site = self._next()
        site.folder.mkdir(parents=True)
        migrate(site.url)
        return site

    def copy(self, site: Site) -> Site:
        self.size(site)  # leaves nothing in the log that is beside the file
        copied = self._next()
        shutil.copytree(site.folder, copied.folder)
        return copied

    def drop(self, site: Site) -> None:
        shutil.rmtree(site.folder)

    def size(self, site: Site) -> int:
        engine = create_engine(site.url)
        with engine.connect() as connection:
            connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
        engine.dispose()
        return (site.folder / "weft.db").stat().st_size

    def _next(self) -> Site:
        self._made += 1
        folder = self._folder / f"sqlite-{self._made}"
        return Site(folder, f"sqlite:///{folder / 'weft.db'}")


class _Postgresql:
    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self._folder, self._cluster, self._made = folder, cluster, 0

    def create(self) -> Site:
        return self._site(self._cluster.copy())

    def copy(self, site: Site) -> Site:
        copied = self._site(self._cluster.create(site.url))
        if site.folder.exists():
            shutil.copytree(site.folder, copied.folder)
        return copied

    def drop(self, site: Site) -> None:
        self._cluster.drop(site.url)
        shutil.rmtree(site.folder, ignore_errors=True)

    def size(self, site: Site) -> int:
        engine = create_engine(site.url)
        with engine.connect() as connection:
            found = connection.scalar(text("SELECT pg_database_size(current_database())"))
        engine.dispose()
        return int(found or 0)

    def _site(self, url: str) -> Site:
        self._made += 1
        return Site(self._folder / f"postgresql-{self._made}", url)
