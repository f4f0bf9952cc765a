"""Maintenance windows: {"cron", "duration_seconds", "time_zone"}.

A window opens at each time that the cron line names, in the time zone, and stays open for the
duration. It is the server's decision: outside of it nothing is offered, and what was offered inside
goes on.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from server.tables import Json

#: Of the five fields of cron; `cronsim` would also take one of seconds.
FIELDS = 5


def check_cron(text: str) -> None:
    """Raise ValueError where the line is no cron line, or never comes."""
    if len(text.split()) != FIELDS:
        raise ValueError("a cron line has five fields: minute, hour, day, month, weekday")
    try:
        next(CronSim(text, datetime(2026, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(f"no cron line: {error}") from error
    except StopIteration as error:
        raise ValueError("this time never comes") from error


def check_zone(name: str) -> None:
    """Raise ValueError where no such time zone is known."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError("no time zone of that name; one is called Europe/Berlin") from error


def is_open(window: Json | None, at: datetime) -> bool:
    """Whether updates may be offered at that time; no window: always."""
    if window is None:
        return True
    # Windows open on whole minutes, so that all moments of one minute have the same last opening.
    opened = _last_opening(window["cron"], window["time_zone"], at.replace(second=0, microsecond=0))
    return opened is not None and at < opened + timedelta(seconds=window["duration_seconds"])


def next_opening(window: Json, at: datetime) -> datetime | None:
    """When it opens next, later than `at`; None: never again."""
    moment = next(CronSim(window["cron"], at.astimezone(ZoneInfo(window["time_zone"]))), None)
    return None if moment is None else moment.astimezone(UTC)


@lru_cache(maxsize=256)
def _last_opening(cron: str, zone: str, minute: datetime) -> datetime | None:
    local = (minute + timedelta(seconds=1)).astimezone(ZoneInfo(zone))
    moment = next(CronSim(cron, local, reverse=True), None)
    return None if moment is None else moment.astimezone(UTC)
