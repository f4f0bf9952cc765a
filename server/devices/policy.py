"""What its groups ask of each device: how often to poll, and how much an update may cost.

Polls are many and groups change seldom, so what holds for a device is settled beforehand:
`devices.poll_interval` is the shortest of its groups', `devices.update_budget` the smallest. It is
settled for one device when something of it changes, for all when a group changes, and for all
again from time to time, since filters may speak of time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, select, update
from sqlalchemy.orm import Session

from server import logs
from server.db import BATCH_ROWS, reading, writing
from server.duties import Duty
from server.filters import devices_where
from server.tables import Assignment, Device, Group

#: Seconds between two times that all devices are looked at.
INTERVAL_SECONDS = 600.0

#: Seconds between two batches of all devices: polls are answered in between.
PAUSE_SECONDS = 0.02

#: Most groups in one query, whose conditions databases bound.
GROUPS_A_QUERY = 20

#: Poll interval and update budget.
Policy = tuple[float | None, int | None]
NOTHING: Policy = (None, None)


@logs.by_itself()
def settle(session: Session, ids: Collection[str]) -> None:
    """Settle these devices, at most BATCH_ROWS, in the caller's transaction."""
    changed = _differing(session, Device.id.in_(ids))
    if not changed:
        return
    rows = [
        {"id": row.id, "poll_interval": poll, "update_budget": budget}
        for row, (poll, budget) in changed
    ]
    session.execute(update(Device), rows)
    other_budget = [row.id for row, (_, budget) in changed if row.update_budget != budget]
    _tell_anew(session, other_budget)
    for device in session.identity_map.values():
        if isinstance(device, Device):
            session.expire(device, ["poll_interval", "update_budget", "generation"])


@logs.by_itself()
def settle_all(engine: Engine) -> int:
    """Settle all devices, batch by batch; returns how many changed.

    A batch in which nothing changes is only read, so that nobody has to wait for it.
    """
    count, after = 0, ""
    while True:
        with reading(engine) as session:
            query = select(Device.id).where(Device.id > after).order_by(Device.id)
            ids = list(session.scalars(query.limit(BATCH_ROWS)))
            changed = [row.id for row, _ in _differing(session, _between(ids))] if ids else []
        if not ids:
            return count
        if changed:
            with writing(engine) as session:
                settle(session, changed)
        count, after = count + len(changed), ids[-1]
        if len(ids) == BATCH_ROWS:
            time.sleep(PAUSE_SECONDS)


def settling(engine: Engine) -> Duty:
    """The duty of settling all devices from time to time, and after a start that came late."""
    return Duty(engine, "policies", INTERVAL_SECONDS, lambda: settle_all(engine))


def _between(ids: list[str]) -> ColumnElement[bool]:
    return Device.id.between(ids[0], ids[-1])


def _differing(
    session: Session, among: ColumnElement[bool]
) -> list[tuple[Row[str, float | None, int | None], Policy]]:
    """The devices for which something else is settled than their groups ask for, with that."""
    query = select(Device.id, Device.poll_interval, Device.update_budget).where(among)
    asked: dict[str, Policy] = {}
    groups = _asking(session)
    for start in range(0, len(groups), GROUPS_A_QUERY):
        _ask(session, among, groups[start : start + GROUPS_A_QUERY], asked)
    rows = ((row, asked.get(row.id, NOTHING)) for row in session.execute(query))
    return [(row, policy) for row, policy in rows if (row[1], row[2]) != policy]


def _asking(session: Session) -> list[Group]:
    """The groups that ask for anything."""
    asks = Group.poll_interval.is_not(None) | Group.update_budget.is_not(None)
    return list(session.scalars(select(Group).where(asks).order_by(Group.id)))


def _ask(
    session: Session, among: ColumnElement[bool], groups: list[Group], asked: dict[str, Policy]
) -> None:
    """Put into `asked` what these groups add for their members."""
    conditions = [devices_where(session, group.filter) for group in groups]
    columns: list[ColumnElement[Any]] = [c.label(f"g{i}") for i, c in enumerate(conditions)]
    for device_id, *inside in session.execute(select(Device.id, *columns).where(among)):
        for group, is_member in zip(groups, inside, strict=True):
            if is_member:
                asked[device_id] = _tighter(asked.get(device_id, NOTHING), group)


def _tighter(one: Policy, group: Group) -> Policy:
    """The shorter interval and the smaller budget; a budget of 0 is the largest: no limit."""
    intervals = [seconds for seconds in (one[0], group.poll_interval) if seconds is not None]
    budgets = [size for size in (one[1], group.update_budget) if size is not None]
    return min(intervals, default=None), min(budgets, key=lambda b: b or math.inf, default=None)


def _tell_anew(session: Session, ids: Collection[str]) -> None:
    """Give a new generation to those whose update another budget may hold back, or let go on."""
    updating = select(Assignment.device_id).where(
        Assignment.device_id.in_(ids), Assignment.finished_at.is_(None)
    )
    query = update(Device).where(Device.id.in_(updating)).values(generation=Device.generation + 1)
    session.execute(query.execution_options(synchronize_session=False))
