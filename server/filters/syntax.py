"""What a filter says, as a tree, and how that is written as text.

tags==line3;(attr.gpu==orin,version.digits=lt=4)
And(Comparison("tags", "==", ...), Or(Comparison("attr.gpu", ...), Comparison(...)))
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

#: Operator -> whether it takes a list of values in parentheses.
OPERATORS: Final = {
    "==": False,
    "!=": False,
    "=gt=": False,
    "=ge=": False,
    "=lt=": False,
    "=le=": False,
    "=in=": True,
    "=out=": True,
    "=null=": False,
}
#: Other ways to write an operator.
SPELLINGS: Final = {">": "=gt=", ">=": "=ge=", "<": "=lt=", "<=": "=le="}

#: Characters that a value without quotes cannot have, beside white space.
RESERVED: Final = "\"'();,=!~<>\\"
_BARE = re.compile(rf"[^\s{re.escape(RESERVED)}*]+")


@dataclass(frozen=True)
class Value:
    """A value: its pieces between wildcards; one piece where there is none."""

    pieces: tuple[str, ...]
    column: int = field(default=0, compare=False)

    @property
    def is_pattern(self) -> bool:
        """Whether it has a wildcard."""
        return len(self.pieces) > 1


@dataclass(frozen=True)
class Comparison:
    """One field against a value, or several; `column` (from 1) is where it stands in the text."""

    name: str
    operator: str
    values: tuple[Value, ...]
    column: int = field(default=0, compare=False)


@dataclass(frozen=True)
class And:
    """All parts hold; at least two."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Or:
    """Some part holds; at least two."""

    parts: tuple[Node, ...]


Node: TypeAlias = Comparison | And | Or


def comparisons(node: Node) -> Iterator[Comparison]:
    """All comparisons of a tree, from left to right."""
    if isinstance(node, Comparison):
        yield node
        return
    for part in node.parts:
        yield from comparisons(part)


def show(node: Node) -> str:
    """The tree as text, which `grammar.parse` reads back as the same tree."""
    if isinstance(node, Comparison):
        values = ",".join(map(_show_value, node.values))
        return f"{node.name}{node.operator}" + (
            f"({values})" if OPERATORS[node.operator] else values
        )
    joint = ";" if isinstance(node, And) else ","
    return joint.join(_show_part(part) for part in node.parts)


def _show_part(node: Node) -> str:
    return show(node) if isinstance(node, Comparison) else f"({show(node)})"


def _show_value(value: Value) -> str:
    if all(not piece or _BARE.fullmatch(piece) for piece in value.pieces) and value.pieces != ("",):
        return "*".join(value.pieces)
    escaped = (re.sub(r'(["\\*])', r"\\\1", piece) for piece in value.pieces)
    return '"' + "*".join(escaped) + '"'
