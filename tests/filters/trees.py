"""Draws filters: any tree, and trees that devices understand."""

from __future__ import annotations

from hypothesis import strategies as st

from server.filters.syntax import OPERATORS, And, Comparison, Node, Or, Value
from tests.filters.conftest import ATTRIBUTES, DIGESTS, TAGS

ORDER = ["=gt=", "=ge=", "=lt=", "=le="]
EQUAL = ["==", "!=", "=in=", "=out="]

_signs = st.characters(exclude_categories=["Cc", "Cs"])


def _trees(leaves: st.SearchStrategy[Comparison], most: int) -> st.SearchStrategy[Node]:
    def joined(inside: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        parts = st.lists(inside, min_size=2, max_size=3).map(tuple)
        return st.builds(And, parts) | st.builds(Or, parts)

    return st.recursive(leaves, joined, max_leaves=most)


@st.composite
def _comparison(
    draw: st.DrawFn,
    names: st.SearchStrategy[str],
    operators: list[str],
    values: st.SearchStrategy[Value],
) -> Comparison:
    operator = draw(st.sampled_from(operators))
    size = draw(st.integers(1, 3)) if OPERATORS[operator] else 1
    return Comparison(draw(names), operator, tuple(draw(values) for _ in range(size)))


def _literals(*texts: str) -> st.SearchStrategy[Value]:
    return st.sampled_from(texts).map(lambda text: Value((text,)))


_any_value = st.builds(
    Value, st.lists(st.text(_signs, max_size=4), min_size=1, max_size=3).map(tuple)
)
_any_name = st.from_regex(r"[a-z][a-z0-9._-]{0,9}", fullmatch=True)

#: Any tree that can be written.
any_tree = _trees(_comparison(_any_name, list(OPERATORS), _any_value), 8)

_words = [
    *TAGS, "cam", "Cam", "camera", "d07", "0.1.0", "m", "other.1", "passed", "idle", "offered",
    "over_budget", *DIGESTS, *(word for of in ATTRIBUTES.values() for word in of),
]  # fmt: skip
_word = st.sampled_from(_words)
_pattern = st.tuples(_word, st.integers(0, 3), st.integers(0, 3)).map(
    lambda drawn: Value((drawn[0][: drawn[1]], drawn[0][len(drawn[0]) - drawn[2] :]))
)
_text_fields = st.sampled_from(
    ["id", "name", "tags", "tag", "agent", "model", "attr.gpu", "attr.ram", "attr.none"]
    + [f"{family}.{model}" for family in ("digest", "health", "state", "assignment", "held")
       for model in ("m", "other.1", "none")]
)  # fmt: skip
_whole_fields = st.sampled_from(["failures", "version.m", "version.other.1", "rollout"])

#: Trees over the fields of devices, with values that some devices have.
device_tree = _trees(
    _comparison(_text_fields, EQUAL, _word.map(lambda word: Value((word,))) | _pattern)
    | _comparison(_text_fields | _whole_fields, ["=null="], _literals("true", "false"))
    | _comparison(_whole_fields, [*EQUAL, *ORDER], _literals("0", "1", "2", "3"))
    | _comparison(st.just("attr.ram"), ORDER, _literals("-2", "0", "512", "4000.5", "1" * 40))
    | _comparison(st.just("last_seen"), ORDER, _literals("-1d", "-7d", "-30d")),
    6,
)
