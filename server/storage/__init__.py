"""Where weights and packages lie: the BlobStore contract and its stores.

`STORES` is the only list of them: what WEFT_BLOBS may begin with, and what opens such a store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from server.settings import Settings
from server.storage.base import BlobStore
from server.storage.local import LocalStore
from server.storage.spool import disk_errors
from shared.errors import BadConfig


def _open_local(settings: Settings, cache_bytes: int) -> BlobStore:  # noqa: ARG001
    return LocalStore(settings.blobs_dir)


def _open_s3(settings: Settings, cache_bytes: int) -> BlobStore:
    try:
        from server.storage.cache import Cache
        from server.storage.s3 import Place, S3Store
    except ModuleNotFoundError as error:
        text = f"WEFT_BLOBS: {error.name} is not installed; install weft[s3]"
        raise BadConfig("invalid", text) from error
    parts = urlsplit(settings.blobs)
    if not parts.netloc:
        raise BadConfig("invalid", "WEFT_BLOBS: a bucket is missing, as in s3://bucket/prefix")
    place = Place(
        parts.netloc, parts.path.strip("/"), settings.blobs_endpoint, settings.blobs_region
    )
    cache = Cache(settings.data_dir / "cache", cache_bytes)
    return S3Store(place, cache, settings.blobs_create)


STORES: Final[Mapping[str, Callable[[Settings, int], BlobStore]]] = MappingProxyType(
    {
        "": _open_local,
        "s3": _open_s3,
    }
)


def open_store(settings: Settings, cached: bool = True) -> BlobStore:
    """The store that the settings name; with `cached` False one that trusts no copy of its own.

    Raises BadConfig `invalid`, BlobError and NoSpace.
    """
    scheme = urlsplit(settings.blobs).scheme
    if settings.blobs and scheme not in STORES.keys() - {""}:
        known = ", ".join(f"{name}://" for name in STORES if name)
        raise BadConfig("invalid", f"WEFT_BLOBS: must be empty or begin with {known}")
    with disk_errors():  # weights are nobody else's business, and `weft doctor` says so
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return STORES[scheme](settings, settings.blobs_cache_bytes if cached else 0)
