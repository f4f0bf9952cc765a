"""SQL that means the same on SQLite and PostgreSQL, where their own words differ.

SQLite's LIKE ignores the case of ASCII letters, so GLOB is used there. Neither database may be
asked to make a number of text that is none: PostgreSQL would fail, SQLite would say 0.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import ColumnElement, Double, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import SQLColumnExpression
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import Boolean, Text


class _Matches(FunctionElement[bool]):
    """column, pattern of GLOB, pattern of LIKE."""

    inherit_cache = True
    type = Boolean()


def matches(column: SQLColumnExpression[Any], pieces: tuple[str, ...]) -> ColumnElement[bool]:
    """Whether the text is made of the pieces, with anything between them; case-sensitive."""
    glob = "*".join(re.sub(r"([*?\[])", r"[\1]", piece) for piece in pieces)
    like = "%".join(re.sub(r"([%_\\])", r"\\\1", piece) for piece in pieces)
    return _Matches(column, literal(glob, Text()), literal(like, Text()))


@compiles(_Matches, "sqlite")
def _glob(element: _Matches, compiler: SQLCompiler, **kwargs: Any) -> str:
    column, glob, _ = element.clauses
    return f"({compiler.process(column, **kwargs)} GLOB {compiler.process(glob, **kwargs)})"


@compiles(_Matches)
def _like(element: _Matches, compiler: SQLCompiler, **kwargs: Any) -> str:
    column, _, like = element.clauses
    return f"({compiler.process(column, **kwargs)} LIKE {compiler.process(like, **kwargs)})"


class _NumberIn(FunctionElement[float]):
    """One text."""

    inherit_cache = True
    type = Double()


def number_in(column: SQLColumnExpression[Any]) -> ColumnElement[float]:
    """The decimal number that a text is, such as `-12.5`; null for any other text."""
    return _NumberIn(column)


@compiles(_NumberIn, "sqlite")
def _by_json(element: _NumberIn, compiler: SQLCompiler, **kwargs: Any) -> str:
    """Valid JSON of digits, dots and minus signs alone is a number."""
    (found,) = element.clauses
    text = f"({compiler.process(found, **kwargs)})"
    decimal = f"{text} NOT GLOB '*[^0-9.-]*' AND json_valid({text})"
    return f"(CASE WHEN {decimal} THEN CAST({text} AS REAL) END)"


@compiles(_NumberIn)
def _by_pattern(element: _NumberIn, compiler: SQLCompiler, **kwargs: Any) -> str:
    (found,) = element.clauses
    text = f"({compiler.process(found, **kwargs)})"
    decimal = f"{text} ~ '^-?(0|[1-9][0-9]*)([.][0-9]+)?$'"
    return f"(CASE WHEN {decimal} THEN CAST({text} AS DOUBLE PRECISION) END)"
