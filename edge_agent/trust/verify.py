"""The task of the agent's child: a server's answer in, what is released out.

What is verified on the way is persisted at once, also where something after it is refused: a device
that has seen a newer timestamp never believes an older one again.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.serialization import DeserializationError
from tuf.ngclient import FetcherInterface

from edge_agent.errors import TrustError
from edge_agent.trust.client import Client, OtherModel
from edge_agent.trust.released import Released
from edge_agent.trust.root import check_first
from edge_agent.trust.store import Store
from shared.metadata import ROOT, TIMESTAMP, MetadataFile, known_bytes, unpack

#: What ngclient raises, and what it is here; the first that fits.
_CODES: tuple[tuple[type[Exception], str], ...] = (
    (ExpiredMetadataError, "expired"),
    (BadVersionNumberError, "older_metadata"),
    (UnsignedMetadataError, "unsigned"),
    (OtherModel, "other_model"),
    (DownloadLengthMismatchError, "too_much_metadata"),
    (DownloadHTTPError, "incomplete"),
    (LengthOrHashMismatchError, "bad_metadata"),
    (RepositoryError, "bad_metadata"),
    (DownloadError, "bad_metadata"),
    (DeserializationError, "bad_metadata"),
)
_log = logging.getLogger(__name__)


def verify(store: Store, model: str, answer: bytes | None, pin: str | None, now: float) -> Released:
    """What is released of a model, by what is held and by what the server has answered.

    `answer` is None where the server says that nothing is lacking. `pin`: SHA-256 of the root to
    begin with, where none is held. `now`: Unix time, see `Client`; 0: whatever has been trusted
    once is not expired. Raises TrustError, BadMetadata, NoSpace.
    """
    store.settle()
    files = unpack(answer, known_bytes(store.held())) if answer else []
    with _told(model):
        client = _begun(store, model, Answer(files, store), now) or _first(
            store, model, Answer(files, store), now, pin
        )
        return client.released()


class Answer(FetcherInterface):
    """The files of one answer, under the names by which ngclient asks for them."""

    def __init__(self, files: list[MetadataFile], store: Store) -> None:
        newest = {f"/{file.role}.json": file.content for file in files if file.role != ROOT}
        self._files = newest | {f"/{file.version}.{file.role}.json": file.content for file in files}
        self._held = store.read(TIMESTAMP)
        self.roots = [file.content for file in files if file.role == ROOT]

    def _fetch(self, url: str) -> Iterator[bytes]:
        content = self._files.get(url)
        if content is None and url == f"/{TIMESTAMP}.json":
            content = self._held  # the server has said that there is no newer one
        if content is None:
            raise DownloadHTTPError(f"{url.lstrip('/')} is neither held nor answered", 404)
        return iter((content,))

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """In memory: what it is by default goes through a file."""
        content = b"".join(self.fetch(url))
        if len(content) > max_length:
            raise DownloadLengthMismatchError(f"{url.lstrip('/')}: more than {max_length} bytes")
        return content


def _begun(store: Store, model: str, answer: Answer, now: float) -> Client | None:
    """From the newest root that is held and sound."""
    for root in (store.root.newest, store.root.pinned):
        if root is not None:
            try:
                return Client(root, store, answer, now, model=model)
            except (RepositoryError, DeserializationError) as error:
                _log.error("%s is damaged: %s", store.root.path, error)
    return None


def _first(store: Store, model: str, answer: Answer, now: float, pin: str | None) -> Client:
    """From the root that is pinned."""
    first = answer.roots[0] if answer.roots else b""
    check_first(first, pin)
    client = Client(first, store, answer, now, model=model)
    store.root.begin(first)
    return client


@contextlib.contextmanager
def _told(model: str) -> Iterator[None]:
    """Turn what ngclient raises into ours."""
    try:
        yield
    except tuple(kind for kind, _ in _CODES) as error:
        code = next(code for kind, code in _CODES if isinstance(error, kind))
        raise TrustError(code, f"metadata of {model}: {error}") from error
