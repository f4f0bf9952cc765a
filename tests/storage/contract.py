"""The BlobStore contract: each store subclasses these tests."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest

from server.errors import BlobError
from server.tables import now

DATA = bytes(range(256)) * 3000
SHA = hashlib.sha256(DATA).hexdigest()


class StoreTests:
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
        assert long_ago < store.kept_at(SHA) < soon
        with pytest.raises(BlobError, match=r"blob\.missing"):
            store.kept_at("0" * 64)

    @pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63])
    def test_only_digests_name_blobs(self, store, name):
        with pytest.raises(BlobError):
            store.size(name)

    def test_names_are_checked_everywhere(self, store):
        for use in (store.delete, lambda name: list(store.chunks(name))):
            with pytest.raises(BlobError):
                use("../../etc/passwd")
        with pytest.raises(BlobError), store.local("../../etc/passwd"):
            pass

    def test_a_part_of_what_is_not_there_is_missed(self, store):
        with pytest.raises(BlobError) as caught:
            list(store.chunks(SHA))
        assert caught.value.code == "blob.missing"
        with pytest.raises(BlobError) as caught, store.local(SHA):
            pass
        assert caught.value.code == "blob.missing"

    def test_a_path_lasts_as_long_as_it_is_asked_for(self, store, arrange):
        arrange(DATA)
        with store.local(SHA) as one, store.local(SHA) as other:
            assert one.read_bytes() == other.read_bytes() == DATA

    def test_unfinished_blobs_of_dead_processes_are_swept(self, store):
        with store.receive() as incoming:
            incoming.write(DATA)
            incoming.finish()
            assert store.sweep(now() - timedelta(days=1)) == 0
            assert incoming.path.exists()
            assert store.sweep(now() + timedelta(seconds=1)) == 1
            assert not incoming.path.exists()
