"""What a key that is held to models or groups sees and changes: its own, in every statement.

The one place of it. While a request of such a key is served, each SELECT, UPDATE and DELETE of each
session gets a condition on every table of `_conditions`, wherever in the statement the table stands
and whichever code has written it: so what is somebody else's is not found, listed, counted,
exported or changed. Two things are made by such keys that nobody has yet, when they are written:

    a model     must have one of the names that the key is held to
    a rollout   gets the key's groups into its filter, so that it reaches no other device

What follows from a request, such as another rollout that takes a device over, is done under
`logs.beyond_scope` or `logs.by_itself`, which see all.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    String,
    and_,
    any_,
    event,
    exists,
    false,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.orm import ORMExecuteState, Session, UOWTransaction, with_loader_criteria

from server import logs
from server.auth.roles import Principal
from server.errors import BadRequest
from server.filters import devices_where
from server.tables import (
    Assignment,
    Dataset,
    DatasetKey,
    Device,
    DeviceModel,
    DeviceTag,
    Event,
    Group,
    Model,
    Package,
    Refinement,
    Rollout,
    RolloutGroup,
    Run,
    SignedReport,
    Version,
)
from shared.errors import UserError

log = logging.getLogger("weft.access")

Condition = ColumnElement[bool]

#: Tables as such: conditions on them get none in turn.
MODELS: Final = Model.__table__
HELD: Final = DeviceModel.__table__
ROLLOUTS: Final = Rollout.__table__
CONFINED: Final = RolloutGroup.__table__
REFINEMENTS: Final = Refinement.__table__
OWN: Final = DatasetKey.__table__

_BOUNDS: Final = "bounds of a key"


@event.listens_for(Session, "do_orm_execute")
def _hold(state: ORMExecuteState) -> None:
    """Put the conditions on a statement of a principal that is held to something."""
    trace, principal = logs.current(), _held()
    acts = state.is_select or state.is_update or state.is_delete
    if principal is None or not acts or state.is_column_load or (trace and trace.sees_all):
        return
    state.statement = state.statement.options(*_bounds(state.session, principal))


@event.listens_for(Session, "before_flush")
def _hold_new(session: Session, _context: UOWTransaction, _instances: object) -> None:
    """See to what a principal that is held to something makes. Raises BadRequest `out_of_scope`."""
    principal = _held()
    if principal is None:
        return
    for row in list(session.new):
        if isinstance(row, Model) and principal.models is not None:
            _require_own(row, principal.models)
        elif isinstance(row, Rollout) and principal.groups is not None and row.id is None:
            _confine(session, row, principal.groups)
        elif isinstance(row, Dataset) and principal.models is not None and row.id is None:
            row.keys.append(DatasetKey(key=principal.name))


def _held() -> Principal | None:
    """Whoever asks, where they are held to something."""
    trace = logs.current()
    principal = trace.principal if trace is not None else None
    return principal if principal is not None and principal.held_to else None


def _bounds(session: Session, principal: Principal) -> list[Any]:
    """The options of a statement; worked out once a session."""
    if _BOUNDS not in session.info:
        session.info[_BOUNDS] = [
            with_loader_criteria(table, condition)
            for table, condition in _conditions(session, principal)
        ]
    found: list[Any] = session.info[_BOUNDS]
    return found


def _conditions(session: Session, principal: Principal) -> Iterator[tuple[Any, Condition]]:
    found: dict[Any, list[Condition]] = {}
    if principal.models is not None:
        for table, condition in _of_models(principal.name, list(principal.models)):
            found.setdefault(table, []).append(condition)
    if principal.groups is not None:
        for table, condition in _of_groups(session, principal.groups):
            found.setdefault(table, []).append(condition)
    yield from ((table, and_(*conditions)) for table, conditions in found.items())


def _of_models(key: str, names: list[str]) -> Iterator[tuple[Any, Condition]]:
    """All that belongs to these models, the devices that run one, datasets that they learn from."""
    ids = select(MODELS.c.id).where(MODELS.c.name.in_(names))
    running = select(HELD.c.device_id).where(HELD.c.model_name.in_(names))
    yield Model, Model.name.in_(names)
    for table in (Version, Refinement, Package, Rollout, Assignment):
        yield table, table.model_id.in_(ids)
    for held in (DeviceModel, Run, SignedReport):
        yield held, held.model_name.in_(names)
    yield Device, Device.id.in_(running)
    yield DeviceTag, DeviceTag.device_id.in_(running)
    of_device = and_(Event.model_id.is_(None), Event.device_id.in_(running))
    yield Event, or_(Event.model_id.in_(ids), of_device)
    used = exists().where(
        REFINEMENTS.c.model_id.in_(ids),
        or_(
            REFINEMENTS.c.dataset_id == Dataset.id,
            REFINEMENTS.c.evaluation_dataset_id == Dataset.id,
        ),
    )
    own = exists().where(OWN.c.dataset_id == Dataset.id, OWN.c.key == key)
    yield Dataset, or_(used, own)


def _of_groups(session: Session, groups: tuple[int, ...]) -> Iterator[tuple[Any, Condition]]:
    """The groups, their devices with all that is theirs, and the rollouts held to them."""
    members = _members(session, groups)
    confined = and_(
        exists().where(CONFINED.c.rollout_id == Rollout.id),
        ~exists().where(CONFINED.c.rollout_id == Rollout.id, CONFINED.c.group_id.not_in(groups)),
    )
    yield Group, Group.id.in_(groups)
    yield Device, _among(session, Device.id, members)
    for table in (Assignment, DeviceModel, DeviceTag, Run, SignedReport):
        yield table, _among(session, table.device_id, members)
    yield Rollout, confined
    own = select(ROLLOUTS.c.id).where(
        ROLLOUTS.c.id.in_(select(CONFINED.c.rollout_id)),
        ROLLOUTS.c.id.not_in(
            select(CONFINED.c.rollout_id).where(CONFINED.c.group_id.not_in(groups))
        ),
    )
    nobodys = and_(Event.device_id.is_(None), Event.model_id.is_not(None))
    yield (
        Event,
        or_(
            _among(session, Event.device_id, members),
            and_(nobodys, or_(Event.rollout_id.is_(None), Event.rollout_id.in_(own))),
        ),
    )


def _members(session: Session, groups: tuple[int, ...]) -> list[str]:
    """Ids of the devices that are in one of the groups now."""
    with logs.beyond_scope(), session.no_autoflush:
        own = session.scalars(select(Group).where(Group.id.in_(groups))).all()
        inside = or_(false(), *(_inside(session, group) for group in own))
        return list(session.scalars(select(Device.id).where(inside)))


def _inside(session: Session, group: Group) -> Condition:
    """Whether a device is in the group; none is where its filter no longer holds."""
    try:
        return devices_where(session, group.filter)
    except UserError as error:
        log.warning("group %s: %s", group.name, error)
        return false()


def _among(session: Session, column: Any, ids: list[str]) -> Condition:
    """Whether the column is one of these ids, which go to the database as one value."""
    if session.get_bind().dialect.name == "sqlite":
        each = func.json_each(json.dumps(ids)).table_valued("value")
        found: Condition = column.in_(select(each.c.value))
        return found
    return column == any_(literal(ids, ARRAY(String)))  # type: ignore[no-any-return]


def _require_own(model: Model, names: tuple[str, ...]) -> None:
    if model.name not in names:
        text = f"this key is held to the models {', '.join(names)}"
        raise BadRequest("out_of_scope", text)


def _confine(session: Session, rollout: Rollout, groups: tuple[int, ...]) -> None:
    """Have a new rollout reach the devices of these groups only, and be theirs."""
    with logs.beyond_scope(), session.no_autoflush:
        names = session.scalars(select(Group.name).where(Group.id.in_(groups)).order_by(Group.name))
        own = f"group=in=({','.join(names)})"
    rollout.filter = own if rollout.filter is None else f"{own};({rollout.filter})"
    rollout.groups.extend(RolloutGroup(group_id=group) for group in groups)
