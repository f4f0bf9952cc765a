"""The kinds of values: how each is read from a filter, and compared in SQL."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn, Protocol, TypeAlias

from sqlalchemy import ColumnElement, and_
from sqlalchemy.sql.expression import SQLColumnExpression

from server.errors import BadFilter
from server.filters.portable import matches, number_in
from server.filters.syntax import Value

Column: TypeAlias = SQLColumnExpression[Any]
Condition: TypeAlias = ColumnElement[bool]
Predicate: TypeAlias = Callable[[Column], Condition]

ORDER: Final = {
    "=gt=": operator.gt,
    "=ge=": operator.ge,
    "=lt=": operator.lt,
    "=le=": operator.le,
}
_EQUAL: Final = frozenset({"==", "!=", "=in=", "=out=", "=null="})
_RELATIVE = re.compile(r"-(\d{1,9})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Kind(Protocol):
    """How the values of a field are read and compared."""

    operators: frozenset[str]

    def same(self, value: Value) -> Predicate:
        """Whether a column is the value. Raises BadFilter `bad_value`, as does `ordered`."""

    def ordered(self, name: str, value: Value) -> Predicate:
        """Whether a column is greater, ... than the value."""


class Text:
    """Text: with wildcards, case-sensitive; greater and less as numbers where `numeric`."""

    def __init__(self, numeric: bool = False) -> None:
        self.operators = _EQUAL | (ORDER.keys() if numeric else set())

    def same(self, value: Value) -> Predicate:  # noqa: D102
        if value.is_pattern:
            return lambda column: matches(column, value.pieces)
        return lambda column: column == value.pieces[0]

    def ordered(self, name: str, value: Value) -> Predicate:  # noqa: D102
        number = _number(value)
        return lambda column: and_(
            number_in(column).is_not(None), ORDER[name](number_in(column), number)
        )


class Whole:
    """Whole numbers of `bits` bits."""

    operators = _EQUAL | ORDER.keys()

    def __init__(self, bits: int = 32) -> None:
        self._limit = 1 << (bits - 1)

    def same(self, value: Value) -> Predicate:  # noqa: D102
        number = self._read(value)
        return lambda column: column == number

    def ordered(self, name: str, value: Value) -> Predicate:  # noqa: D102
        number = self._read(value)
        return lambda column: ORDER[name](column, number)

    def _read(self, value: Value) -> int:
        text = "*".join(value.pieces)
        if not re.fullmatch(r"-?[0-9]{1,19}", text) or not -self._limit <= int(text) < self._limit:
            refuse(value, f"a whole number below {self._limit} is needed, not {text!r}")
        return int(text)


class Time:
    """Moments: RFC 3339, or so long before now: `-7d`."""

    operators = _EQUAL | ORDER.keys()

    def same(self, value: Value) -> Predicate:  # noqa: D102
        moment = _moment(value)
        return lambda column: column == moment

    def ordered(self, name: str, value: Value) -> Predicate:  # noqa: D102
        moment = _moment(value)
        return lambda column: ORDER[name](column, moment)


class Truth(Text):
    """The words `true` and `false`."""

    def same(self, value: Value) -> Predicate:  # noqa: D102
        truth(value)
        return super().same(value)


def refuse(value: Value, text: str) -> NoReturn:
    """Raise BadFilter `bad_value` at the value."""
    raise BadFilter("bad_value", f"column {value.column}: {text}")


def truth(value: Value) -> bool:
    """`true` or `false`. Raises BadFilter `bad_value`."""
    text = "*".join(value.pieces)
    if text not in ("true", "false"):
        refuse(value, f"true or false is needed, not {text!r}")
    return text == "true"


def _number(value: Value) -> float:
    text = "*".join(value.pieces)
    if not re.fullmatch(r"-?[0-9]{1,40}(\.[0-9]{1,40})?", text):
        refuse(value, f"a number is needed, not {text!r}")
    return float(text)


def _moment(value: Value) -> datetime:
    text = "*".join(value.pieces)
    try:
        if ago := _RELATIVE.fullmatch(text):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        refuse(value, f"a time is needed, such as 2026-03-01T10:00:00Z or -7d, not {text!r}")
