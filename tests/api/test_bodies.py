"""JSON that Python would read, and no database could keep, is refused; all else is let through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api import bodies
from server.api.bodies import MAX_DEPTH, BodyRoom, check_json
from server.api.gate import Overloaded
from server.errors import BadRequest


def nested(depth: int) -> bytes:
    return b'{"a":[' * (depth // 2) + b"]}" * (depth // 2)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b'{"name": "a\\u0000b"}', "NUL"),
        (b'{"name": "a\0b"}', "NUL"),
        (rb'{"name": "\ud800"}', "surrogate"),
        (rb'{"name": "\uDFFF\ud800"}', "surrogate"),
        (b'{"name": "\xed\xa0\x80"}', "UTF-8"),
        (b'{"rate": NaN}', "NaN"),
        (b'[1, -Infinity, "x"]', "NaN"),
        (nested(MAX_DEPTH + 2), "deep"),
        (b"[" * 1_000_000, "deep"),
    ],
)
def test_what_is_no_json_is_refused(body, what):
    with pytest.raises(BadRequest, match=what):
        check_json(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'"NaN and Infinity are words"',
        b'{"quote": "\\"NaN\\""}',
        rb'{"name": "\ud83d\ude00"}',
        json.dumps({"brackets": "[" * 100}).encode(),
        json.dumps([[]] * 1000).encode(),
        nested(MAX_DEPTH),
    ],
)
def test_what_is_json_passes(body):
    check_json(body)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=30,
)


@given(values)
def test_nothing_that_is_sound_is_refused(value):
    text = json.dumps(value)
    if "\\u0000" not in text and "\\\\u" not in text:
        check_json(text.encode())


def coming(*pieces: bytes, ends: bool = True) -> Callable[[], Awaitable[Any]]:
    """A body as ASGI brings it; one that does not end keeps its reader waiting."""
    left = list(pieces)

    async def receive() -> Any:
        if not left:
            await asyncio.Event().wait()
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left) or not ends}

    return receive


def test_bodies_that_are_still_coming_share_a_room() -> None:
    room = BodyRoom(100)

    async def crowd() -> None:
        first = asyncio.create_task(room.read(coming(b"x" * 60, ends=False), 1000))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await room.read(coming(b"x" * 30, b"x" * 30), 1000)
        assert await room.read(coming(b"x" * 40), 1000) == b"x" * 40
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await room.read(coming(b"x" * 100), 1000) == b"x" * 100

    asyncio.run(crowd())


def test_a_body_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.01)
    with pytest.raises(BadRequest, match="did not come within") as raised:
        asyncio.run(BodyRoom().read(coming(b"{", ends=False), 1000))
    assert raised.value.code == "request.incomplete"


def test_what_was_refused_takes_no_room() -> None:
    room = BodyRoom(100)
    with pytest.raises(BadRequest, match="above 50 bytes"):
        asyncio.run(room.read(coming(b"x" * 40, b"x" * 40), 50))
    assert asyncio.run(room.read(coming(b"x" * 100), 100))
