"""Downloading a package into a file that grows, across interruptions and restarts.

A package's ETag is its SHA-256, so what is needed to resume is known from the offer and from the
length of the file. Nothing here is trusted: see `edge_agent.trust`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import httpx

from edge_agent import files
from edge_agent.api import Backoff, DeviceApi
from edge_agent.errors import DownloadError, ServerAway
from shared.wire import PackageOffer

#: Tries in a row that bring no byte before the download is left for later.
MAX_FRUITLESS_TRIES = 3
#: Power loss costs at most this much of what has arrived.
SYNC_BYTES = 1 << 20

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_log = logging.getLogger(__name__)


def download(
    api: DeviceApi, offer: PackageOffer, path: Path, wait: Callable[[float], None]
) -> None:
    """Bring `path` to the length that was offered, from where it stands.

    Raises DownloadError `interrupted` after MAX_FRUITLESS_TRIES, with `wait(seconds)` between
    tries; `bad_answer` or `too_long` where the answer makes no sense; Unreachable where the server
    refuses.
    """
    backoff, fruitless = Backoff(), 0
    while (held := received(path)) != offer.size:
        failure = _request(api, offer, path, held)
        if failure is None:
            continue
        fruitless = 0 if received(path) > held else fruitless + 1
        if fruitless >= MAX_FRUITLESS_TRIES:
            raise DownloadError("interrupted", failure.message) from failure
        if fruitless == 0:
            backoff.reset()
        _log.info("%s; %d of %d bytes held", failure.message, received(path), offer.size)
        wait(backoff.next(failure.retry_after))


def received(path: Path) -> int:
    """Bytes of the download held so far."""
    return path.stat().st_size if path.exists() else 0


def _request(api: DeviceApi, offer: PackageOffer, path: Path, held: int) -> ServerAway | None:
    """One request from where the file ends; returns what ended it too early, if anything did."""
    if held > offer.size:
        files.remove(path)
        held = 0
    try:
        with (
            api.package(offer.url, held, f'"{offer.sha256}"') as response,
            files.growing(path) as file,
        ):
            start = _start(response, offer, held)
            file.seek(start)
            file.truncate()
            _append(file, response.iter_raw(), offer.size - start)
    except ServerAway as error:
        return error
    if received(path) < offer.size:
        return ServerAway("the answer ended before the package did")
    return None


def _start(response: httpx.Response, offer: PackageOffer, held: int) -> int:
    """The offset at which the body belongs; raises DownloadError where it is not the package."""
    encoding = response.headers.get("content-encoding", "identity")
    etag = response.headers.get("etag")
    if encoding != "identity":
        raise DownloadError("bad_answer", f"the package comes encoded as {encoding!r}")
    if etag not in (None, f'"{offer.sha256}"'):
        raise DownloadError("bad_answer", f"the package comes with the ETag {etag}")
    if response.status_code == httpx.codes.OK:
        return 0
    given = response.headers.get("content-range", "")
    parts = _CONTENT_RANGE.fullmatch(given)
    expected = (held, offer.size - 1, offer.size)
    if response.status_code != httpx.codes.PARTIAL_CONTENT or not parts:
        raise DownloadError("bad_answer", f"status {response.status_code}, range {given!r}")
    if tuple(int(number) for number in parts.groups()) != expected:
        raise DownloadError("bad_answer", f"asked for bytes from {held}, got {given!r}")
    return held


def _append(file: BinaryIO, pieces: Iterator[bytes], room: int) -> None:
    """Write what comes, synced now and then; raises DownloadError beyond `room` bytes."""
    unsynced = 0
    for piece in pieces:
        if len(piece) > room:
            raise DownloadError("too_long", "more bytes came than were offered")
        file.write(piece)
        room -= len(piece)
        unsynced += len(piece)
        if unsynced >= SYNC_BYTES:
            files.sync(file)
            unsynced = 0
