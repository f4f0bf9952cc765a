"""The penalty box: whom rollouts leave out, as their updates failed too often in a row.

The limit is the setting `WEFT_PENALTY_AFTER`. It travels with the engine, as decisions are taken in
many transactions, by requests and duties alike. Only admission asks: a device that is in a rollout
already goes on, and a retry is an explicit wish.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Engine, false
from sqlalchemy.orm import Session

from server.tables import Device, Rollout

_OPTION = "penalty_after"


def set_limit(engine: Engine, failures: int) -> None:
    """Leave devices out after so many failures in a row; 0: never."""
    engine.update_execution_options(**{_OPTION: failures})


def limit(session: Session) -> int:
    """The failures in a row that bring a device into the box; 0: there is none."""
    return int(session.get_bind().get_execution_options().get(_OPTION, 0))


def boxed(session: Session, rollout: Rollout) -> ColumnElement[bool]:
    """Whether the rollout leaves a device out; one that leads back takes every device."""
    failures = limit(session)
    return false() if rollout.rollback or not failures else Device.failures >= failures
