"""The local store: the contract, and what is special to files."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import namedtuple
from datetime import timedelta
from pathlib import Path

import pytest

from server.errors import BlobError
from server.settings import Settings
from server.storage import open_store, spool
from server.storage.local import LocalStore
from server.tables import now
from shared.errors import NoSpace
from tests.storage.contract import DATA, SHA, StoreTests


class TestLocalStore(StoreTests):
    @pytest.fixture
    def store(self, tmp_path):
        return LocalStore(tmp_path / "blobs")

    @pytest.fixture
    def arrange(self, store):
        def put(data: bytes) -> None:
            sha = hashlib.sha256(data).hexdigest()
            folder = store.root / sha[:2]
            folder.mkdir(exist_ok=True)
            (folder / sha).write_bytes(data)

        return put

    def test_keeping_a_blob_again_makes_it_new(self, store, arrange, tmp_path):
        arrange(DATA)
        os.utime(store.place(SHA), (0, 0))
        hour_ago = now() - timedelta(hours=1)
        assert list(store.kept_before(hour_ago)) == [SHA]
        (tmp_path / "source").write_bytes(DATA)
        store.put(tmp_path / "source")
        assert list(store.kept_before(hour_ago)) == []

    def test_a_shortened_blob_is_noticed(self, store, arrange):
        arrange(DATA)
        chunks = store.chunks(SHA, 0, len(DATA))
        os.truncate(store.place(SHA), 1000)
        next(chunks)
        with pytest.raises(BlobError, match="ends"):
            list(chunks)

    def test_what_cannot_fit_is_refused_at_once(self, store, monkeypatch):
        usage = namedtuple("usage", "free")
        monkeypatch.setattr(spool.shutil, "disk_usage", lambda _: usage(spool.RESERVE_BYTES + 100))
        with store.receive(100):
            pass
        with pytest.raises(NoSpace) as caught, store.receive(101):
            pass
        assert caught.value.code == "storage.no_space"

    def test_a_full_disk_is_told_and_leaves_nothing(self, store, monkeypatch):
        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        source = store.root / "source"
        source.write_bytes(DATA)
        with pytest.raises(NoSpace) as caught:
            store.put(source)
        assert caught.value.code == "storage.no_space"
        assert list(store.unfinished.iterdir()) == []
        assert not store.place(SHA).exists()

    def test_bytes_are_synced_before_their_name_appears(self, store, monkeypatch):
        calls = []
        sync = os.fsync

        def watched(descriptor: int) -> None:
            calls.append((store.place(SHA).exists(), Path(f"/proc/self/fd/{descriptor}").is_dir()))
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", watched)
        with store.receive() as incoming:
            incoming.write(DATA)
            incoming.keep()
        assert calls == [(False, False), (True, True), (True, True)]


def test_a_new_data_folder_is_its_owners_alone(tmp_path):
    folder = tmp_path / "new"
    open_store(Settings(data_dir=folder))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
