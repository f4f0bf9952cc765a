"""JSON that Python would read, and no database could keep, is refused; all else is let through."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.bodies import MAX_DEPTH, check_json
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
