"""The JSON bodies of requests: read whole, within the size limit, and checked before they are used.

Python's JSON reader takes more than JSON is, and more than a database can keep: NaN, NUL
characters, halves of surrogate pairs, brackets nested so deep that writing them again fails.
These are refused here, once for all routes. The checks work on the raw text, each in one fast pass.
"""

from __future__ import annotations

import re

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from server.errors import BadRequest

MAX_DEPTH = 32

STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
PAIRS = re.compile(rb"\[\]|\{\}")
NOT_BRACKETS = re.compile(rb"[^\[\]{}]+")
NO_NUMBER = re.compile(rb"NaN|Infinity")

_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
HALF_PAIR = re.compile(rb"%s(?!%s)|(?<!%s)%s" % (_HIGH, _LOW, _HIGH, _LOW))


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body. Raises BadRequest `too_large`, ClientDisconnect."""
    pieces, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise too_large(limit)
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)


def too_large(limit: int) -> BadRequest:
    """The refusal of a body above `limit` bytes."""
    return BadRequest("too_large", f"the body is above {limit} bytes")


def check_json(body: bytes) -> None:
    """Raise BadRequest `invalid` where JSON text holds what no JSON text should."""
    if b"\0" in body or b"\\u0000" in body:
        raise BadRequest("invalid", "body: NUL characters are not taken")
    if b"\\u" in body and HALF_PAIR.search(body):
        raise BadRequest("invalid", "body: half of a surrogate pair is no character")
    if NO_NUMBER.search(body) and NO_NUMBER.search(STRINGS.sub(b"", body)):
        raise BadRequest("invalid", "body: NaN and Infinity are no JSON numbers")
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_deep(body):
        raise BadRequest("invalid", f"body: nested more than {MAX_DEPTH} deep")


def _is_deep(body: bytes) -> bool:
    """Whether brackets nest too deep: each pass takes off the innermost pairs, one level."""
    left = NOT_BRACKETS.sub(b"", STRINGS.sub(b"", body))
    for _ in range(MAX_DEPTH):
        outer = PAIRS.sub(b"", left)
        if outer == left:  # none is left, or those left have no other half
            return len(left) > MAX_DEPTH
        left = outer
    return bool(left)
