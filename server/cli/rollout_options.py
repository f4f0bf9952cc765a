"""How a rollout is written on the command line: `10:3600`, `failed:20:5`, `0 2 * * *:4h@Zone`."""

from __future__ import annotations

import re
from typing import Any

from server.errors import BadCommand

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def duration(text: str) -> int:
    """Seconds: `90`, `90s`, `15m`, `4h`, `2d`. Raises BadCommand."""
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text.strip())
    if found is None:
        raise BadCommand("invalid", f"{text!r} is no duration: write 90, 15m, 4h or 2d")
    return int(found[1]) * _SECONDS[found[2] or "s"]


def phase(text: str) -> dict[str, Any]:
    """`PERCENT` or `PERCENT:SOAK`. Raises BadCommand."""
    percent, _, soak = text.partition(":")
    return {
        "percent": _number(percent, text, "10:1h"),
        "soak_seconds": duration(soak) if soak else 0,
    }


def abort_rule(text: str) -> dict[str, Any]:
    """`KIND:PERCENT` or `KIND:PERCENT:MIN_COUNT`. Raises BadCommand."""
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise BadCommand("invalid", f"{text!r} is no rule: write failed:20 or failed:20:5")
    rule = {"kind": parts[0], "percent": _number(parts[1], text, "failed:20:5")}
    return rule | (
        {"min_count": int(_number(parts[2], text, "failed:20:5"))} if len(parts) == 3 else {}
    )


def window(text: str) -> dict[str, Any]:
    """`CRON:DURATION` or `CRON:DURATION@ZONE`. Raises BadCommand."""
    times, _, zone = text.partition("@")
    cron, colon, length = times.rpartition(":")
    if not colon:
        raise BadCommand("invalid", f"{text!r} is no window: write '0 2 * * *:4h@Europe/Berlin'")
    named = {"time_zone": zone.strip()} if zone else {}
    return {"cron": cron.strip(), "duration_seconds": duration(length)} | named


def _number(text: str, whole: str, example: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise BadCommand(
            "invalid", f"{whole!r}: {text!r} is no number; an example is {example}"
        ) from error
