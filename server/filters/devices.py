"""The fields by which devices can be filtered.

Conditions are on `Device`, which the query that they are put into selects from; what lies in other
tables is looked up by correlated EXISTS on aliases, so that it never mixes with that query's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Select, false, not_, or_, select, true
from sqlalchemy.orm import Session, aliased

from server import logs
from server.errors import BadFilter
from server.filters.grammar import parse
from server.filters.kinds import Column, Condition, Predicate, Text, Time, Whole, refuse
from server.filters.sql import Field, Subject, column, require_operator, values, where
from server.filters.syntax import Comparison, Node, comparisons
from server.tables import Assignment, Device, DeviceModel, DeviceTag, Group, Model, Version

#: Groups inside groups; a circle would go deeper.
MAX_GROUPS_DEEP = 5
#: Values in a filter and all the groups that it stands for, each as often as it is named. Far below
#: what databases bear: 1000 levels in an expression of SQLite.
MAX_VALUES_IN_ALL = 600

#: Name of a group -> the condition on its members.
Members = Callable[[str], Condition]


def devices_where(session: Session, text: str) -> Condition:
    """The condition on Device that a filter stands for. Raises BadFilter."""
    return _where(session, parse(text), 0, [0])


def groups_named(text: str) -> set[str]:
    """The groups that a filter names itself. Raises BadFilter."""
    named = (c for c in comparisons(parse(text)) if c.name == "group")
    return {"*".join(value.pieces) for comparison in named for value in comparison.values}


def _where(session: Session, node: Node, depth: int, count: list[int]) -> Condition:
    """The condition, `depth` groups down; `count` has the values so far."""
    count[0] += sum(len(comparison.values) for comparison in comparisons(node))
    if depth > MAX_GROUPS_DEEP:
        raise BadFilter("too_long", f"groups are nested more than {MAX_GROUPS_DEEP} deep")
    if count[0] > MAX_VALUES_IN_ALL:
        raise BadFilter("too_long", f"with its groups it has more than {MAX_VALUES_IN_ALL} values")

    def members(name: str) -> Condition | None:
        found = session.scalar(select(Group.filter).where(Group.name == name))
        return None if found is None else _where(session, parse(found), depth + 1, count)

    return where(subject(members), node)


def subject(members: Callable[[str], Condition | None]) -> Subject:
    """The fields; `members` gives the condition of a saved group, None where there is none."""
    return Subject(PLAIN | {"group": _group(members)}, FAMILIES)


def anybody(_name: str) -> Condition:
    """The members of any group, where only the form of a filter is looked at."""
    return true()


def _group(members: Callable[[str], Condition | None]) -> Field:
    def condition(comparison: Comparison) -> Condition:
        require_operator(comparison, frozenset({"==", "!=", "=in=", "=out="}))
        parts: list[Condition] = []
        for value in comparison.values:
            name = "*".join(value.pieces)
            found = None if value.is_pattern else members(name)
            if found is None:
                refuse(value, f"there is no group {name[:100]!r}")
            parts.append(found)
        inside = or_(false(), *parts)
        return not_(inside) if comparison.operator in ("!=", "=out=") else inside

    return condition


def _exists(
    query: Select[Any], owner: Column, found: Column, model: Column | None = None
) -> Callable[[Predicate], Condition]:
    """`some` over the rows of `query` that belong to the device.

    `model` has the name of the model that a row is about: who may not see that finds no row.
    """

    def some(predicate: Predicate) -> Condition:
        mine = query.where(owner == Device.id, found.is_not(None), predicate(found))
        seen = logs.models_seen()
        if model is not None and seen is not None:
            mine = mine.where(model.in_(seen))
        return mine.correlate(Device).exists()

    return some


def _tags() -> Field:
    tag = aliased(DeviceTag)
    return values(Text(), _exists(select(tag.tag), tag.device_id, tag.tag))


def _models() -> Field:
    held = aliased(DeviceModel)
    name = held.model_name
    return values(Text(), _exists(select(name), held.device_id, name, name))


def _rollouts() -> Field:
    given, model = aliased(Assignment), aliased(Model)
    query = select(given.id).join(model, given.model_id == model.id)
    return values(Whole(), _exists(query, given.device_id, given.rollout_id, model.name))


def _attribute(name: str) -> Field:
    return column(Text(numeric=True), Device.attributes[name].as_string())


def _held(name: str) -> Callable[[str], Field]:
    """A column of what the device holds of a model."""

    def of(model: str) -> Field:
        held = aliased(DeviceModel)
        query = select(held.model_name).where(held.model_name == model)
        return values(Text(), _exists(query, held.device_id, getattr(held, name), held.model_name))

    return of


def _version(name: str) -> Field:
    """The number of the version in use, where the registry knows the weights."""
    held, model, version = aliased(DeviceModel), aliased(Model), aliased(Version)
    query = (
        select(version.id)
        .join(model, version.model_id == model.id)
        .join(held, held.weights_digest == version.weights_digest)
        .where(model.name == name, held.model_name == name)
    )
    return values(Whole(), _exists(query, held.device_id, version.number, model.name))


def _assigned(name: str) -> Callable[[str], Field]:
    """A column of the open assignment of a model."""

    def of(model_name: str) -> Field:
        given, model = aliased(Assignment), aliased(Model)
        query = (
            select(given.id)
            .join(model, given.model_id == model.id)
            .where(model.name == model_name, given.finished_at.is_(None))
        )
        return values(Text(), _exists(query, given.device_id, getattr(given, name), model.name))

    return of


PLAIN: dict[str, Field] = {
    "id": column(Text(), Device.id),
    "name": column(Text(), Device.name),
    "standing": column(Text(), Device.standing),
    "tags": _tags(),
    "tag": _tags(),
    "agent": column(Text(), Device.capabilities["agent"].as_string()),
    "model": _models(),
    "last_seen": column(Time(), Device.last_seen_at),
    "enrolled": column(Time(), Device.created_at),
    "failures": column(Whole(), Device.failures),
    "rollout": _rollouts(),
}

FAMILIES: dict[str, Callable[[str], Field]] = {
    "attr": _attribute,
    "version": _version,
    "digest": _held("weights_digest"),
    "health": _held("health"),
    "state": _held("state"),
    "assignment": _assigned("state"),
    "held": _assigned("held"),
}
