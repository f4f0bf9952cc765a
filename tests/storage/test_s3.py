"""The S3 store: the contract, and what is special to a service behind a network."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.errors import BlobError
from server.settings import Settings
from server.storage import open_store, s3
from server.storage.s3 import S3Store
from server.tables import now
from shared.errors import BadConfig
from tests.bucket import Service
from tests.storage.contract import DATA, SHA, StoreTests

OTHER = hashlib.sha256(b"other").hexdigest()


class Bucket:
    """A bucket as the SDK sees it, beside the store."""

    def __init__(self, service: Service, tmp_path: Any, **changes: Any) -> None:
        self.client = service.client()
        settings = {"data_dir": tmp_path, **service.settings(), **changes}
        self.settings = Settings(**settings)
        self.name = self.settings.blobs.split("/")[2]

    def open(self, **changes: Any) -> Any:
        return open_store(self.settings.model_copy(update=changes))

    def put(self, data: bytes, name: str = "") -> str:
        sha = name or hashlib.sha256(data).hexdigest()
        self.client.put_object(Bucket=self.name, Key=f"weft/{sha[:2]}/{sha}", Body=data)
        return sha

    def keys(self) -> set[str]:
        found = self.client.list_objects_v2(Bucket=self.name)
        return {item["Key"] for item in found.get("Contents", ())}


@pytest.fixture
def bucket(s3: Service, tmp_path: Any) -> Bucket:
    return Bucket(s3, tmp_path / "data")


@pytest.fixture
def store(bucket: Bucket) -> S3Store:
    return bucket.open()


@pytest.fixture
def arrange(bucket: Bucket) -> Any:
    return bucket.put


class TestS3Store(StoreTests):
    pass


class TestS3StoreWithoutCache(StoreTests):
    @pytest.fixture
    def store(self, bucket):
        return bucket.open(blobs_cache_bytes=0)


def test_objects_lie_under_the_prefix(bucket, store, tmp_path):
    (tmp_path / "source").write_bytes(DATA)
    store.put(tmp_path / "source")
    assert bucket.keys() == {f"weft/{SHA[:2]}/{SHA}"}
    bucket.client.put_object(Bucket=bucket.name, Key="weft/readme.txt", Body=b"not a blob")
    assert list(store.kept_before(now() + timedelta(minutes=1))) == [SHA]


def test_a_large_blob_goes_up_in_parts_and_comes_down_whole(bucket, monkeypatch, tmp_path):
    monkeypatch.setattr(s3, "PART_BYTES", 5 * 1024**2)
    data = b"".join(hashlib.sha256(bytes([i])).digest() * 32768 for i in range(12))
    (tmp_path / "source").write_bytes(data)
    store = bucket.open(blobs_cache_bytes=0)
    kept = store.put(tmp_path / "source")
    head = bucket.client.head_object(
        Bucket=bucket.name, Key=f"weft/{kept.sha256[:2]}/{kept.sha256}", ChecksumMode="ENABLED"
    )
    assert head["ETag"].endswith('-3"')
    assert hashlib.sha256(b"".join(store.chunks(kept.sha256))).hexdigest() == kept.sha256
    with store.local(kept.sha256) as path:
        assert path.stat().st_size == len(data)


def test_an_upload_in_parts_that_died_is_aborted(bucket, store):
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)  # the stand-in dates all of them to 2010
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key=f"weft/{SHA[:2]}/{SHA}")
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key="another/program's")
    assert store.sweep(long_ago) == 0
    assert store.sweep(now() - timedelta(days=1)) == 1
    left = bucket.client.list_multipart_uploads(Bucket=bucket.name)["Uploads"]
    assert [upload["Key"] for upload in left] == ["another/program's"]


def test_the_cache_keeps_what_was_used_last(bucket, tmp_path):
    store = bucket.open(blobs_cache_bytes=25)
    first, second, third = (bucket.put(bytes([i]) * 10) for i in range(3))
    for sha in (first, second, first, third):  # room for two: the second goes
        assert len(b"".join(store.chunks(sha))) == 10
    for sha in (first, second, third):
        bucket.client.delete_object(Bucket=bucket.name, Key=f"weft/{sha[:2]}/{sha}")
    assert b"".join(store.chunks(first)) == b"\0" * 10
    assert b"".join(store.chunks(third)) == b"\2" * 10
    with pytest.raises(BlobError):
        store.size(second)


def test_what_is_dropped_from_the_cache_is_taken_from_no_reader(bucket):
    store = bucket.open(blobs_cache_bytes=10)
    first, second = bucket.put(b"1" * 10), bucket.put(b"2" * 10)
    with store.local(first), store.local(first) as path, store.local(second):
        assert path.read_bytes() == b"1" * 10


def test_other_bytes_under_a_digest_are_refused(bucket, store):
    bucket.put(DATA, OTHER)
    with pytest.raises(BlobError) as caught, store.local(OTHER):
        pass
    assert caught.value.code == "blob.damaged"
    assert list((bucket.settings.data_dir / "cache").rglob("*/*")) == []


def test_a_service_that_does_not_answer_is_told(bucket, store, monkeypatch):
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    with pytest.raises(BlobError) as caught:
        bucket.open(blobs_endpoint="http://127.0.0.1:9")
    assert caught.value.code == "blob.unreachable"


def test_a_bucket_must_exist_unless_it_may_be_created(bucket):
    with pytest.raises(BlobError) as caught:
        bucket.open(blobs="s3://not-there-yet")
    assert caught.value.code == "blob.missing"
    bucket.open(blobs="s3://not-there-yet", blobs_create=True)
    assert bucket.open(blobs="s3://not-there-yet").size is not None


def test_missing_credentials_are_told(bucket, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(BlobError) as caught:
        bucket.open()
    assert caught.value.code == "blob.refused"


@pytest.mark.parametrize("blobs", ["ftp://host/folder", "/srv/blobs", "s3://", "s3:"])
def test_an_unknown_place_is_refused(bucket, blobs):
    with pytest.raises(BadConfig):
        bucket.open(blobs=blobs)
