r"""Text -> tree: RSQL, read by recursive descent.

    or          = and, { ("," | "or"), and }
    and         = term, { (";" | "and"), term }
    term        = "(", or, ")" | comparison
    comparison  = field, operator, ( value | "(", value, { ",", value }, ")" )
    value       = bare | "'...'" | '"..."'        `*` stands for any characters, `\*` for itself

Length, depth and number of values are bounded, so no text costs more than these allow.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import NoReturn

from server.errors import BadFilter
from server.filters.syntax import OPERATORS, RESERVED, SPELLINGS, And, Comparison, Node, Or, Value

#: Characters of a filter; levels of parentheses; values in all its comparisons together.
MAX_LENGTH = 4_000
MAX_DEPTH = 10
MAX_VALUES = 200

_SPACE = re.compile(r"\s*")
_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_OPERATOR = re.compile(r"=[a-z]*=|!=|[<>]=?")
_BARE = re.compile(rf"[^\s{re.escape(RESERVED)}]+")
_QUOTED = re.compile(r"(['\"])((?:\\.|(?!\1)[^\\])*)\1", re.DOTALL)
_WORD = re.compile(r"(and|or)(?![^\s(])", re.IGNORECASE)
_PIECE = re.compile(r"\\(.)|(\*)|([^\\*]+)", re.DOTALL)


def parse(text: str) -> Node:
    """The tree of a filter. Raises BadFilter `syntax`, `too_long`."""
    if len(text) > MAX_LENGTH:
        raise BadFilter("too_long", f"the filter has {len(text)} characters, above {MAX_LENGTH}")
    for index, character in enumerate(text):
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\r\n":
            raise BadFilter("syntax", f"column {index + 1}: a control character")
    return _Reader(text).whole()


class _Reader:
    """Goes through the text once; `_at` is the index of what is read next."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._values = text, 0, 0

    def whole(self) -> Node:
        node = self._any(0)
        if self._at < len(self._text):
            self._expected("`;`, `,`, `and` or `or`")
        return node

    def _any(self, depth: int) -> Node:
        parts = self._joined(",", "or", lambda: self._all(depth))
        return parts[0] if len(parts) == 1 else Or(parts)

    def _all(self, depth: int) -> Node:
        parts = self._joined(";", "and", lambda: self._term(depth))
        return parts[0] if len(parts) == 1 else And(parts)

    def _joined(self, sign: str, word: str, read: Callable[[], Node]) -> tuple[Node, ...]:
        parts = [read()]
        while self._take(sign) or self._take_word(word):
            parts.append(read())
        return tuple(parts)

    def _term(self, depth: int) -> Node:
        if not self._take("("):
            return self._comparison()
        if depth == MAX_DEPTH:
            raise BadFilter(
                "too_long", f"column {self._at}: more than {MAX_DEPTH} parentheses deep"
            )
        node = self._any(depth + 1)
        self._close()
        return node

    def _comparison(self) -> Comparison:
        self._skip()
        column = self._at + 1
        field = self._match(_FIELD) or self._expected("a field, such as `tags==line3`")
        written = self._match(_OPERATOR) or self._expected("an operator, such as `==`")
        operator = SPELLINGS.get(written, written)
        if operator not in OPERATORS:
            self._at -= len(written)
            self._expected(f"one of {' '.join(OPERATORS)}, not {written}")
        values = self._list() if OPERATORS[operator] else (self._value(),)
        return Comparison(field, operator, values, column)

    def _list(self) -> tuple[Value, ...]:
        if not self._take("("):
            self._expected("`(` and a list of values")
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
        self._close()
        return tuple(values)

    def _value(self) -> Value:
        self._skip()
        column = self._at + 1
        self._values += 1
        if self._values > MAX_VALUES:
            raise BadFilter("too_long", f"column {column}: more than {MAX_VALUES} values")
        if quoted := _QUOTED.match(self._text, self._at):
            self._at = quoted.end()
            return Value(_pieces(quoted[2]), column)
        bare = self._match(_BARE) or self._expected("a value")
        return Value(tuple(bare.split("*")), column)

    def _close(self) -> None:
        if not self._take(")"):
            self._expected("`)`")

    def _take(self, sign: str) -> bool:
        self._skip()
        found = self._text.startswith(sign, self._at)
        self._at += len(sign) if found else 0
        return found

    def _take_word(self, word: str) -> bool:
        match = _WORD.match(self._text, self._at)
        if match is None or match[1].lower() != word:
            return False
        self._at = match.end()
        return True

    def _match(self, pattern: re.Pattern[str]) -> str:
        self._skip()
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return match[0] if match else ""

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _expected(self, what: str) -> NoReturn:
        rest = self._text[self._at :]
        found = f"at {rest[:20]!r}" if rest else "at the end"
        raise BadFilter("syntax", f"column {self._at + 1}: {what} is expected {found}")


def _pieces(quoted: str) -> tuple[str, ...]:
    """The content of quotes, split at its wildcards; a backslash makes the next sign plain."""
    pieces = [""]
    for escaped, star, plain in _PIECE.findall(quoted):
        if star:
            pieces.append("")
        else:
            pieces[-1] += escaped or plain
    return tuple(pieces)
