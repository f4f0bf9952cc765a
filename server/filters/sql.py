"""Tree -> condition, by the fields of a subject.

A field is a set of values of a row: none, one, or several (tags). What each operator means follows
from one question, `some`: is there a value that fulfils a condition?

    ==, =in=                  some value is (one of) the given
    !=, =out=                 exactly the rows for which `==`, `=in=` does not hold
    =gt= =ge= =lt= =le=       some value is greater, ...
    =null=true | false        there is no value | there is one

So a condition is true or false for every row, never unknown, and `!=` also finds rows with nothing
there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import and_, false, not_, or_, true

from server.errors import BadFilter
from server.filters.kinds import ORDER, Column, Condition, Kind, Predicate, truth
from server.filters.syntax import And, Comparison, Node

#: Is there a value of the row that fulfils the predicate? Must be true or false, never null.
Some = Callable[[Predicate], Condition]
Field = Callable[[Comparison], Condition]


@dataclass(frozen=True)
class Subject:
    """What may be filtered: its plain fields, and families of fields such as `attr.<name>`."""

    fields: Mapping[str, Field]
    families: Mapping[str, Callable[[str], Field]] = field(default_factory=dict)

    def named(self, comparison: Comparison) -> Field:
        """The field that a comparison names. Raises BadFilter `unknown_field`."""
        name = comparison.name
        if name in self.fields:
            return self.fields[name]
        family, dot, rest = name.partition(".")
        if dot and rest and family in self.families:
            return self.families[family](rest)
        allowed = ", ".join([*self.fields, *(f"{family}.<name>" for family in self.families)])
        text = f"column {comparison.column}: there is no field {name!r}; fields: {allowed}"
        raise BadFilter("unknown_field", text)


def where(subject: Subject, node: Node) -> Condition:
    """The condition that a tree stands for. Raises BadFilter `unknown_field`, `bad_value`."""
    if isinstance(node, Comparison):
        return subject.named(node)(node)
    parts = [where(subject, part) for part in node.parts]
    return and_(*parts) if isinstance(node, And) else or_(*parts)


def values(kind: Kind, some: Some) -> Field:
    """The field whose values are of a kind, and are looked through by `some`."""

    def condition(comparison: Comparison) -> Condition:
        name = comparison.operator
        require_operator(comparison, kind.operators)
        if name == "=null=":
            exists = some(lambda _: true())
            return not_(exists) if truth(comparison.values[0]) else exists
        if name in ORDER:
            return some(kind.ordered(name, comparison.values[0]))
        tests = [kind.same(value) for value in comparison.values]
        found = some(lambda column: or_(false(), *(test(column) for test in tests)))
        return not_(found) if name in ("!=", "=out=") else found

    return condition


def column(kind: Kind, found: Column) -> Field:
    """The field that is one column, or an expression; null is no value."""
    return values(kind, lambda predicate: and_(found.is_not(None), predicate(found)))


def require_operator(comparison: Comparison, allowed: frozenset[str]) -> None:
    """Raise BadFilter `bad_value` where a field cannot be compared in this way."""
    if comparison.operator not in allowed:
        text = f"`{comparison.name}` cannot be compared by {comparison.operator}, only by "
        listed = " ".join(sorted(allowed))
        raise BadFilter("bad_value", f"column {comparison.column}: {text}{listed}")
