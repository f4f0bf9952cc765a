"""Downloading a package into a file that grows, across interruptions and restarts.

A package's ETag is its SHA-256, so what is needed to resume is known from the offer and from the
length of the file. One call is one slice: it asks for what the link allows now, writes what comes,
and leaves waiting and trying again to its caller. Nothing here is trusted: see `edge_agent.trust`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from edge_agent import files
from edge_agent.api import DeviceApi
from edge_agent.connection import Answer
from edge_agent.errors import DownloadError, LinkHeld, ServerAway
from edge_agent.link import Link
from shared.wire import PackageOffer

#: No model's download keeps the others, or the polls, waiting for longer.
SLICE_SECONDS = 20.0
#: Power loss costs at most this much of what has arrived.
SYNC_BYTES = 1 << 20

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Body:
    """Where the bytes of an answer belong in the package, `stop` not included.

    An answer not `in_slices` is read to its end, as the next one would begin at 0 again.
    """

    start: int
    stop: int
    in_slices: bool


def download(api: DeviceApi, offer: PackageOffer, path: Path, link: Link, until: float) -> bool:
    """Bring `path` nearer to the length that was offered, from where it stands; True once there.

    False: the slice is over (`until`, by the clock of `link`). Raises ServerAway where the link or
    the server ended it early, or somebody else answered; DownloadError `bad_answer` or `too_long`
    where the answer makes no sense; LinkHeld where this link is not to be used now; Unreachable
    where the server refuses.
    """
    if received(path) > offer.size:
        files.remove(path)
    if received(path) == offer.size:
        with files.growing(path):
            return True  # synced: what a killed agent wrote may be in memory only
    try:
        while (held := received(path)) < offer.size:
            if link.clock() >= until:
                return False
            _request(api, offer, path, held, link, until)
            _log.debug("%d of %d bytes held", received(path), offer.size)
    finally:
        link.persist()
    return True


def received(path: Path) -> int:
    """Bytes of the download held so far. Raises NoSpace where the disk cannot be read."""
    return files.size(path)


def _request(
    api: DeviceApi, offer: PackageOffer, path: Path, held: int, link: Link, until: float
) -> None:
    """One request from where the file ends, for as much as the link allows."""
    stop = held + link.allowed(offer.size - held, until)
    with api.package(offer.url, _etag(offer), held, stop, offer.size) as answer:
        body = _body(answer, offer, held, stop)
        if body.stop - held > stop - held and not link.has_room(body.stop - body.start):
            raise LinkHeld("budget_spent", "the server sends only whole packages")
        pieces = _bounded(answer.body, body.stop - body.start, link)
        with files.growing(path) as file:
            file.seek(held)
            unsynced = 0
            for piece in _without(pieces, held - body.start):
                unsynced = _append(file, piece, unsynced)
                if body.in_slices and link.clock() >= until:
                    break
    if received(path) < body.stop and (not body.in_slices or link.clock() < until):
        raise ServerAway("the answer ended before the package did")


def _body(answer: Answer, offer: PackageOffer, held: int, stop: int) -> _Body:
    """What the answer says that its body is; raises where it is not the package."""
    encoding = answer.headers.get("content-encoding", "identity")
    etag = answer.headers.get("etag")
    if encoding != "identity":
        raise _nonsense(answer, offer, f"the package comes encoded as {encoding!r}")
    if etag not in (None, _etag(offer)):
        raise _nonsense(answer, offer, f"the package comes with the ETag {etag}")
    if answer.status == HTTPStatus.OK:
        body = _Body(0, offer.size, in_slices=(held, stop) == (0, offer.size))
    else:
        body = _part(answer, offer, held, stop)
    length, expected = answer.headers.get("content-length"), body.stop - body.start
    if length is not None and length != str(expected):
        told = f"{length} bytes are announced, {expected} were expected"
        longer = length.isdecimal() and int(length) > expected
        raise _nonsense(answer, offer, told, "too_long" if longer else "bad_answer")
    if length is None and etag is None and answer.status == HTTPStatus.OK:
        raise _nonsense(answer, offer, "neither length nor ETag")
    return body


def _part(answer: Answer, offer: PackageOffer, held: int, stop: int) -> _Body:
    """The part that a 206 announces: it begins where asked, and may be shorter, never longer."""
    given = answer.headers.get("content-range", "")
    parts = _CONTENT_RANGE.fullmatch(given)
    if answer.status != HTTPStatus.PARTIAL_CONTENT or not parts:
        raise _nonsense(answer, offer, f"status {answer.status}, range {given!r}")
    first, last, size = (int(number) for number in parts.groups())
    if first != held or size != offer.size or not held <= last < stop:
        raise _nonsense(answer, offer, f"asked for bytes {held}-{stop - 1}, got {given!r}")
    return _Body(first, last + 1, in_slices=True)


def _nonsense(
    answer: Answer, offer: PackageOffer, told: str, code: str = "bad_answer"
) -> DownloadError | ServerAway:
    """Whose fault it is: without the package's ETag, the answer is not the server's.

    The portal of a network that wants a login answers everything; that passes.
    """
    if answer.headers.get("etag") == _etag(offer):
        return DownloadError(code, told)
    return ServerAway(f"not an answer of the server: {told}", code="bad_answer")


def _etag(offer: PackageOffer) -> str:
    return f'"{offer.sha256}"'


def _bounded(pieces: Iterator[bytes], room: int, link: Link) -> Iterator[bytes]:
    """The pieces, as fast as the link may be used; raises DownloadError beyond `room` bytes."""
    for piece in pieces:
        if len(piece) > room:
            raise DownloadError("too_long", "more bytes came than were offered")
        room -= len(piece)
        yield piece
        link.pace(len(piece))


def _without(pieces: Iterator[bytes], known: int) -> Iterator[bytes]:
    """The pieces without the first `known` bytes, which the file holds already.

    They come where a server ignores ranges: so even then an interruption loses nothing.
    """
    for piece in pieces:
        yield piece[known:]
        known = max(0, known - len(piece))


def _append(file: BinaryIO, piece: bytes, unsynced: int) -> int:
    """Write a piece, synced now and then; returns the bytes that are not synced yet.

    It is flushed, so that an agent that is killed loses nothing of it.
    """
    file.write(piece)
    file.flush()
    unsynced += len(piece)
    if unsynced < SYNC_BYTES:
        return unsynced
    files.sync(file)
    return 0
