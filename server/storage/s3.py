"""Blobs as objects of a bucket, by the S3 protocol: `<prefix>/<first two digits>/<sha256>`.

A blob is written to this machine first, then uploaded with the checksum of its bytes, which the
service verifies before it says yes: an object is there as a whole or not at all. A large one goes
up in parts, each with its own checksum. Blobs that are read as files, and small ones (packages,
which many devices ask for), are kept in a bounded cache on this machine.

The SDK stops here: BlobError `missing`, `damaged`, `unreachable`, `refused`, and NoSpace come out.
Credentials come from where the SDK always looks: AWS_ACCESS_KEY_ID and its kind, profiles, roles.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from server.errors import BlobError
from server.storage.base import CHUNK_BYTES, SHA256, BlobStore, Incoming, Kept, check_name
from server.storage.cache import Cache
from server.storage.spool import SpoolFile
from shared.errors import NoSpace

#: Larger files are uploaded in parts of this size, a few at a time.
PART_BYTES = 16 * 1024**2
PARTS_AT_ONCE = 4

#: Blobs up to this size are fetched whole and served from the cache.
SMALL_BYTES = 8 * 1024**2

#: Requests are repeated by the SDK, with growing pauses, as often as this in all.
ATTEMPTS = 4
CONNECT_SECONDS, READ_SECONDS = 5, 60

_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_FULL = frozenset({"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"})
_AWAY = frozenset({"RequestTimeout", "SlowDown", "ServiceUnavailable", "InternalError"})


@dataclass(frozen=True)
class Place:
    """Which bucket, under which prefix; `endpoint` empty: AWS itself."""

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""


def connect(place: Place) -> Any:
    """The SDK's client. Raises BlobError."""
    style = {"addressing_style": "path" if place.endpoint else "auto"}
    config = Config(
        retries={"mode": "standard", "max_attempts": ATTEMPTS},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=50,
        s3=style,
    )
    with _seam(place.bucket):
        return boto3.Session().client(
            "s3",
            endpoint_url=place.endpoint or None,
            region_name=place.region or None,
            config=config,
        )


class S3Store(BlobStore):
    """Blobs in a bucket, which must exist unless `create` is set."""

    def __init__(self, place: Place, cache: Cache, create: bool = False) -> None:
        self._bucket = place.bucket
        self._prefix = f"{place.prefix}/" if place.prefix else ""
        self._cache = cache
        self._client = connect(place)
        self._check_bucket(place, create)

    def sweep(self, before: datetime) -> int:
        """Remove unfinished files here, and abort uploads in parts that nobody will finish."""
        pages = self._client.get_paginator("list_multipart_uploads")
        aborted = 0
        with self._seam("uploads"):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                for upload in page.get("Uploads", ()):
                    if upload["Initiated"] < before:
                        self._client.abort_multipart_upload(
                            Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
                        aborted += 1
        return aborted + self._cache.spool.sweep(before)

    @contextmanager
    def receive(self, expected: int = 0) -> Iterator[Incoming]:
        """A new blob in the spool of this machine; its file is gone at the end."""
        self._cache.spool.check_room(expected)
        incoming = S3Incoming(self, self._cache)
        try:
            yield incoming
        finally:
            incoming.close()

    @contextmanager
    def local(self, sha256: str) -> Iterator[Path]:
        """A copy in the cache, or beside it where it is too large for that."""
        with self._cache.link(sha256) as path:
            if path is not None:
                yield path
                return
        with self._fetched(sha256) as path:
            yield path

    def size(self, sha256: str) -> int:
        """Bytes of the object."""
        cached = self._cache.size(sha256)
        if cached is not None:
            return cached
        return int(self._head(sha256)["ContentLength"])

    def chunks(self, sha256: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Pieces of the object, from `start` to `stop`."""
        size = self.size(sha256)
        stop = size if stop is None else stop
        if start >= stop:
            return
        if size > min(SMALL_BYTES, self._cache.limit):
            yield from self._stream(sha256, start, stop)
            return
        with self.local(sha256) as path, path.open("rb") as file:
            file.seek(start)
            while start < stop and (data := file.read(min(CHUNK_BYTES, stop - start))):
                start += len(data)
                yield data

    def delete(self, sha256: str) -> None:
        """Remove the object."""
        self._cache.drop(sha256)
        with self._seam(sha256):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(sha256))

    def kept_at(self, sha256: str) -> datetime:
        """The service's time of the object."""
        found: datetime = self._head(sha256)["LastModified"]
        return found

    def kept_before(self, moment: datetime) -> Iterator[str]:
        """By the service's time of the object, which is new each time that the blob is kept."""
        pages = self._client.get_paginator("list_objects_v2")
        with self._seam("the list of blobs"):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                for found in page.get("Contents", ()):
                    name = found["Key"].removeprefix(self._prefix)[3:]
                    if SHA256.fullmatch(name) and found["LastModified"] < moment:
                        yield name

    def _head(self, sha256: str) -> dict[str, Any]:
        with self._seam(sha256):
            head: dict[str, Any] = self._client.head_object(
                Bucket=self._bucket, Key=self._key(sha256)
            )
        return head

    def upload(self, path: Path, kept: Kept) -> None:
        """Make the file at `path` the object of its digest, durably."""
        where = {"Bucket": self._bucket, "Key": self._key(kept.sha256)}
        with self._seam(kept.sha256):
            if kept.size > PART_BYTES:
                parts = TransferConfig(
                    multipart_threshold=PART_BYTES,
                    multipart_chunksize=PART_BYTES,
                    max_concurrency=PARTS_AT_ONCE,
                )
                checked = {"ChecksumAlgorithm": "SHA256"}
                self._client.upload_file(str(path), *where.values(), checked, Config=parts)
                return
            checksum = base64.b64encode(bytes.fromhex(kept.sha256)).decode()
            with path.open("rb") as file:
                self._client.put_object(**where, Body=file, ChecksumSHA256=checksum)

    @contextmanager
    def _fetched(self, sha256: str) -> Iterator[Path]:
        size = self.size(sha256)
        self._cache.spool.check_room(size)
        with closing(SpoolFile(self._cache.spool)) as file:
            for data in self._stream(sha256, 0, size):
                file.write(data)
            if file.finish().sha256 != sha256:
                raise BlobError("damaged", f"the object of {sha256} holds other bytes")
            self._cache.add(file.path, sha256)
            yield file.path

    def _stream(self, sha256: str, start: int, stop: int) -> Iterator[bytes]:
        if start >= stop:
            return
        part = f"bytes={start}-{stop - 1}"
        with self._seam(sha256):
            key = self._key(sha256)
            body = self._client.get_object(Bucket=self._bucket, Key=key, Range=part)["Body"]
            with closing(body):
                for data in body.iter_chunks(CHUNK_BYTES):
                    start += len(data)
                    yield data
        if start != stop:
            raise BlobError("damaged", f"the blob {sha256} ends {stop - start} bytes early")

    def _check_bucket(self, place: Place, create: bool) -> None:
        """Find out now what would else fail at the first blob."""
        with self._seam(f"bucket {self._bucket}"):
            try:
                self._client.head_bucket(Bucket=self._bucket)
            except ClientError as error:
                if not create or _code(error) not in {*_MISSING, "NoSuchBucket"}:
                    raise
                region = self._client.meta.region_name
                where = {"CreateBucketConfiguration": {"LocationConstraint": region}}
                named = not place.endpoint and region not in (None, "us-east-1")
                self._client.create_bucket(Bucket=self._bucket, **(where if named else {}))

    def _key(self, sha256: str) -> str:
        check_name(sha256)
        return f"{self._prefix}{sha256[:2]}/{sha256}"

    @contextmanager
    def _seam(self, what: str) -> Iterator[None]:
        with _seam(f"{self._bucket}: {what}"):
            yield


class S3Incoming(SpoolFile, Incoming):
    """A file of the spool that is uploaded."""

    def __init__(self, store: S3Store, cache: Cache) -> None:
        super().__init__(cache.spool)
        self._store, self._cache = store, cache

    def keep(self) -> Kept:
        """Upload, and leave a copy in the cache: it will soon be wanted."""
        kept = self.finish()
        self._store.upload(self.path, kept)
        self._cache.add(self.path, kept.sha256)
        return kept


@contextmanager
def _seam(what: str) -> Iterator[None]:
    """What the SDK raises becomes ours."""
    try:
        yield
    except ClientError as error:
        raise _ours(error, what) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise BlobError("refused", f"{what}: {error}") from error
    except (BotoCoreError, HTTPClientError, boto3.exceptions.Boto3Error) as error:
        cause = error.__context__
        if isinstance(cause, ClientError):  # the SDK wraps what a transfer in parts was answered
            raise _ours(cause, what) from error
        raise BlobError("unreachable", f"{what}: {error}") from error


def _ours(error: ClientError, what: str) -> BlobError | NoSpace:
    code, text = _code(error), error.response.get("Error", {}).get("Message", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _MISSING:
        return BlobError("missing", f"{what} is not in the store")
    if code in _FULL:
        return NoSpace("no_space", f"{what}: {text}")
    away = code in _AWAY or status >= 500
    return BlobError("unreachable" if away else "refused", f"{what}: {code}: {text}")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
