"""The BlobStore contract, for every store; and what is special to local files."""

from __future__ import annotations

import errno
import hashlib
import os
from collections import namedtuple
from datetime import timedelta
from pathlib import Path

import pytest

from server.errors import BlobError
from server.storage import local
from server.storage.local import LocalStore
from server.tables import now
from shared.errors import NoSpace

DATA = bytes(range(256)) * 3000
SHA = hashlib.sha256(DATA).hexdigest()


class StoreContract:
    """What every store promises; `arrange` puts a blob in place without the code under test."""

    def test_what_is_kept_can_be_read(self, store):
        with store.receive() as incoming:
            for start in range(0, len(DATA), 1000):
                incoming.write(DATA[start : start + 1000])
            kept = incoming.keep()
        assert (kept.sha256, kept.size) == (SHA, len(DATA))
        assert store.size(SHA) == len(DATA)
        assert b"".join(store.chunks(SHA)) == DATA
        with store.local(SHA) as path:
            assert path.read_bytes() == DATA

    def test_what_is_not_kept_leaves_nothing(self, store):
        with store.receive() as incoming:
            incoming.write(DATA)
            path = incoming.path
            assert incoming.finish().sha256 == SHA
            assert path.read_bytes() == DATA
        assert not path.exists()
        with pytest.raises(BlobError, match="not in the store"):
            store.size(SHA)

    def test_an_exception_leaves_nothing(self, store):
        seen = []

        def break_off() -> None:
            with store.receive() as incoming:
                incoming.write(DATA)
                seen.append(incoming.path)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            break_off()
        assert not seen[0].exists()

    def test_the_same_bytes_are_stored_once(self, store, arrange, tmp_path):
        arrange(DATA)
        source = tmp_path / "source"
        source.write_bytes(DATA)
        assert store.put(source).sha256 == SHA
        assert b"".join(store.chunks(SHA)) == DATA

    @pytest.mark.parametrize(("start", "stop"), [(0, 1), (5, 5), (1000, 700_000), (767_999, None)])
    def test_parts_can_be_read(self, store, arrange, start, stop):
        arrange(DATA)
        assert b"".join(store.chunks(SHA, start, stop)) == DATA[start:stop]

    def test_deleting_is_forgiving(self, store, arrange):
        arrange(DATA)
        store.delete(SHA)
        store.delete(SHA)
        with pytest.raises(BlobError) as caught:
            store.size(SHA)
        assert caught.value.code == "blob.missing"

    def test_blobs_are_listed_by_the_time_they_were_last_kept(self, store, arrange, tmp_path):
        arrange(DATA)
        arrange(b"other")
        soon, long_ago = now() + timedelta(minutes=1), now() - timedelta(minutes=1)
        assert set(store.kept_before(soon)) == {SHA, hashlib.sha256(b"other").hexdigest()}
        assert list(store.kept_before(long_ago)) == []

    @pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63])
    def test_only_digests_name_blobs(self, store, name):
        with pytest.raises(BlobError):
            store.size(name)


class TestLocalStore(StoreContract):
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

    def test_leftovers_are_swept(self, store):
        (store.unfinished / "left").write_bytes(DATA)
        assert store.sweep() == 1
        assert list(store.unfinished.iterdir()) == []

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
        monkeypatch.setattr(local.shutil, "disk_usage", lambda _: usage(local.RESERVE_BYTES + 100))
        with store.receive(100):
            pass
        with pytest.raises(NoSpace) as caught, store.receive(101):
            pass
        assert caught.value.code == "storage.no_space"

    def test_a_full_disk_is_told_and_leaves_nothing(self, store, monkeypatch):
        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(local.os, "fsync", full)
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

        monkeypatch.setattr(local.os, "fsync", watched)
        with store.receive() as incoming:
            incoming.write(DATA)
            incoming.keep()
        assert calls == [(False, False), (True, True), (True, True)]
