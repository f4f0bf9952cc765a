"""The JSON bodies of requests: read whole, within the size limit, and checked before they are used.

Python's JSON reader takes more than JSON is, and more than a database can keep: NaN, NUL
characters, halves of surrogate pairs, brackets nested so deep that writing them again fails.
These are refused here, once for all routes. The checks work on the raw text, each in one fast pass.
"""

from __future__ import annotations

import asyncio
import re

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from server.api.gate import Overloaded
from server.errors import BadRequest

MAX_DEPTH = 32
#: Bytes of all bodies that are still coming, and seconds that one has to come.
MOST_BYTES = 64 * 1024**2
BODY_SECONDS = 60.0
#: Until somebody who found no room should ask again.
RETRY_SECONDS = 5.0

STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
PAIRS = re.compile(rb"\[\]|\{\}")
NOT_BRACKETS = re.compile(rb"[^\[\]{}]+")
NO_NUMBER = re.compile(rb"NaN|Infinity")

_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
HALF_PAIR = re.compile(rb"%s(?!%s)|(?<!%s)%s" % (_HIGH, _LOW, _HIGH, _LOW))


class BodyRoom:
    """What one process holds of bodies that are still coming: whoever sends them may be nobody.

    A body has `BODY_SECONDS` to come, so that slow ones do not take the room of others for long.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._left = most

    async def read(self, receive: Receive, limit: int) -> bytes:
        """The whole body.

        Raises BadRequest `too_large`, `incomplete`, Overloaded, ClientDisconnect.
        """
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_SECONDS):
                await self._receive(receive, limit, pieces)
        except TimeoutError:
            told = f"the body did not come within {BODY_SECONDS:.0f} s"
            raise BadRequest("incomplete", told) from None
        finally:
            self._left += sum(map(len, pieces))
        return b"".join(pieces)

    async def _receive(self, receive: Receive, limit: int, pieces: list[bytes]) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            piece = message.get("body", b"")
            more, size = message.get("more_body", False), size + len(piece)
            if size > limit:
                raise too_large(limit)
            if len(piece) > self._left:
                raise Overloaded(RETRY_SECONDS)
            self._left -= len(piece)
            pieces.append(piece)


def too_large(limit: int) -> BadRequest:
    """The refusal of a body above `limit` bytes."""
    return BadRequest("too_large", f"the body is above {limit} bytes")


def check_json(body: bytes) -> None:
    """Raise BadRequest `invalid` where JSON text holds what no JSON text should."""
    if b"\0" in body or b"\\u0000" in body:
        raise BadRequest("invalid", "body: NUL characters are not taken")
    if not body.isascii():
        _require_utf8(body)
    if b"\\u" in body and HALF_PAIR.search(body):
        raise BadRequest("invalid", "body: half of a surrogate pair is no character")
    if NO_NUMBER.search(body) and NO_NUMBER.search(STRINGS.sub(b"", body)):
        raise BadRequest("invalid", "body: NaN and Infinity are no JSON numbers")
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_deep(body):
        raise BadRequest("invalid", f"body: nested more than {MAX_DEPTH} deep")


def _require_utf8(body: bytes) -> None:
    """Python's JSON reader takes other encodings too, and halves of pairs as they are."""
    try:
        body.decode()
    except UnicodeDecodeError:
        raise BadRequest("invalid", "body: not UTF-8") from None


def _is_deep(body: bytes) -> bool:
    """Whether brackets nest too deep: each pass takes off the innermost pairs, one level."""
    left = NOT_BRACKETS.sub(b"", STRINGS.sub(b"", body))
    for _ in range(MAX_DEPTH):
        outer = PAIRS.sub(b"", left)
        if outer == left:  # none is left, or those left have no other half
            return len(left) > MAX_DEPTH
        left = outer
    return bool(left)
