"""Groups: filters over devices with a name, and with what holds for those that match.

A group may name other groups in its filter. Nothing that names a group may be left with a name that
means nothing: a group in use cannot be deleted or renamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server import logs
from server.errors import BadGroup
from server.filters import devices_where, groups_named
from server.history.events import record
from server.rollouts.membership import STARTED
from server.rollouts.steps import mark_due
from server.tables import Group, Rollout, now

ENDED = ("finished", "aborted")


def find_group(session: Session, name: str) -> Group:
    """The group of that name. Raises BadGroup `not_found`."""
    group = session.scalar(select(Group).where(Group.name == name))
    if group is None:
        raise BadGroup("not_found", f"there is no group {name[:100]!r}")
    return group


def create_group(session: Session, values: Mapping[str, Any]) -> Group:
    """Save a group. Raises BadGroup `exists`, `circular`, BadFilter."""
    _require_new(session, values["name"])
    group = Group(**values)
    session.add(group)
    _save(session, group)
    record(session, "group.created", dict(values))
    return group


def change_group(session: Session, group: Group, values: Mapping[str, Any]) -> None:
    """Change what is given. Raises BadGroup `exists`, `circular`, `in_use`, BadFilter."""
    before = group.name
    if values.get("name", before) != before:
        _require_unused(session, group)
        _require_new(session, values["name"])
    for name, value in values.items():
        setattr(group, name, value)
    group.updated_at = now()
    _save(session, group)
    record(session, "group.changed", {"group": before, **values})
    rematch(session)


def delete_group(session: Session, group: Group) -> None:
    """Delete a group; its devices stay. Raises BadGroup `in_use`."""
    _require_unused(session, group)
    session.delete(group)
    record(session, "group.deleted", {"name": group.name, "filter": group.filter})


def naming_groups(session: Session, name: str) -> set[str]:
    """The groups whose filters name this one, directly or through others."""
    named = {group.name: groups_named(group.filter) for group in session.scalars(select(Group))}
    found: set[str] = set()
    waiting = {name}
    while waiting:
        waiting = {other for other in named if named[other] & waiting} - found
        found |= waiting
    return found


def rollouts_naming(session: Session, names: set[str]) -> list[Rollout]:
    """The rollouts that still admit devices and name one of these groups.

    Beside those under way, the newest of each model: devices that come later join it.
    """
    newest = select(func.max(Rollout.id)).group_by(Rollout.model_id)
    admits = Rollout.state.not_in(ENDED) | (Rollout.id.in_(newest) & (Rollout.state == "finished"))
    query = select(Rollout).where(Rollout.filter.is_not(None), admits).order_by(Rollout.id)
    return [
        rollout for rollout in session.scalars(query) if groups_named(rollout.filter or "") & names
    ]


@logs.beyond_scope()
def rematch(session: Session) -> None:
    """Have the rollouts looked at whose filters may now match other devices than before."""
    started = Rollout.filter.is_not(None) & Rollout.state.in_(STARTED)
    mark_due(session, set(session.scalars(select(Rollout.id).where(started))), now())


def _save(session: Session, group: Group) -> None:
    """Write the group, and look at its filter and at those which it becomes a part of."""
    session.flush()
    naming = naming_groups(session, group.name)
    if group.name in naming:
        raise BadGroup("circular", f"the filter of {group.name!r} comes back to {group.name!r}")
    for text in (group.filter, *(find_group(session, name).filter for name in sorted(naming))):
        devices_where(session, text)


def _require_new(session: Session, name: str) -> None:
    if session.scalar(select(Group.id).where(Group.name == name)) is not None:
        raise BadGroup("exists", f"there is a group {name!r} already")


def _require_unused(session: Session, group: Group) -> None:
    for other in session.scalars(select(Group).order_by(Group.id)):
        if group.name in groups_named(other.filter) and other is not group:
            raise BadGroup("in_use", f"the group {other.name!r} names {group.name!r}")
    for rollout in rollouts_naming(session, {group.name}):
        raise BadGroup("in_use", f"rollout {rollout.id} names {group.name!r}")
