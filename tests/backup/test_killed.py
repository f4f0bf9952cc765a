"""A backup and a restore that are killed: nothing half is taken for whole, and both go on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from server.backup.folder import BackupFolder
from server.backup.restore import restore
from server.backup.take import take
from server.backup.verify import verify
from server.db import reading
from server.errors import BadBackup
from server.storage.local import LocalStore
from server.tables import Device

#: Ends itself, as a power cut would, as soon as the first blob is copied.
DYING = """
import os, signal, sys
from pathlib import Path
from server.backup.folder import BackupFolder
from server.backup.restore import restore
from server.backup.take import take
from server.db import open_engine
from server.storage.local import LocalStore

what, url, blobs, folder = sys.argv[1:]
die = lambda _: os.kill(os.getpid(), signal.SIGKILL)
engine, store, folder = open_engine(url), LocalStore(Path(blobs)), BackupFolder(Path(folder))
take(engine, store, folder, die) if what == "take" else restore(folder, engine, store, die)
"""


def die_at(what: str, engine: Any, blobs: Path, folder: Path) -> None:
    url = engine.url.render_as_string(hide_password=False)
    words = [what, url, str(blobs), str(folder)]
    done = subprocess.run([sys.executable, "-c", DYING, *words], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


def test_a_killed_backup_is_none_and_the_next_one_is_whole(
    engine: Any, blobs: LocalStore, tmp_path: Path
) -> None:
    folder = BackupFolder(tmp_path / "backup")
    die_at("take", engine, blobs.root, folder.root)
    with pytest.raises(BadBackup, match="interrupted"):
        verify(folder, lambda _: None)
    copied: list[int] = []
    manifest = take(engine, blobs, folder, copied.append)
    assert 0 < sum(copied) < manifest.blob_bytes
    verify(folder, lambda _: None)


def test_a_killed_restore_leaves_the_database_empty_and_goes_on(
    engine: Any, blobs: LocalStore, empty: Any, tmp_path: Path
) -> None:
    folder = BackupFolder(tmp_path / "backup")
    manifest = take(engine, blobs, folder, lambda _: None)
    into = LocalStore(tmp_path / "into")
    die_at("restore", empty, into.root, folder.root)
    with reading(empty) as session:
        assert session.scalar(select(func.count()).select_from(Device)) == 0
    copied: list[int] = []
    restore(folder, empty, into, copied.append)
    assert 0 < sum(copied) < manifest.blob_bytes
    with reading(empty) as session:
        assert session.scalar(select(func.count()).select_from(Device)) == 2
