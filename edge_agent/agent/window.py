"""The hours of the day in which new weights may come into use, by the device's own clock. Pure."""

from __future__ import annotations

from datetime import datetime, time, timedelta


def seconds_until(window: str, now: datetime) -> float:
    """Seconds until `window`, such as `22:00-05:30`, is open; 0 while it is. `now` is local time.

    It is open from the first time on, closed from the second one on, and may pass midnight.
    """
    opens, closes = (time.fromisoformat(part) for part in window.split("-"))
    wall = now.replace(tzinfo=None)
    is_open = opens <= wall.time() < closes
    if opens > closes:
        is_open = wall.time() >= opens or wall.time() < closes
    if is_open:
        return 0.0
    start = datetime.combine(wall.date(), opens)
    if start <= wall:
        start += timedelta(days=1)
    return (start - wall).total_seconds()
