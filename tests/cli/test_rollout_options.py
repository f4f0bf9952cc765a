"""How rollouts are written on the command line."""

from __future__ import annotations

import pytest

from server.cli import rollout_options as written
from server.errors import BadCommand


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("4h", 14_400), ("2d", 172_800)]
)
def test_durations(text: str, seconds: int) -> None:
    assert written.duration(text) == seconds


def test_what_is_written_becomes_the_body() -> None:
    assert written.phase("10:1h") == {"percent": 10, "soak_seconds": 3600}
    assert written.phase("2.5") == {"percent": 2.5, "soak_seconds": 0}
    assert written.abort_rule("failed:20") == {"kind": "failed", "percent": 20}
    rule = {"kind": "timed_out", "percent": 5, "min_count": 4}
    assert written.abort_rule("timed_out:5:4") == rule
    window = {"cron": "0 2 * * *", "duration_seconds": 14_400}
    assert written.window("0 2 * * *:4h") == window
    assert written.window("0 2 * * *:4h@Europe/Berlin") == window | {"time_zone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (written.duration, "soon"),
        (written.duration, ""),
        (written.phase, "ten:1h"),
        (written.phase, "10:1w"),
        (written.abort_rule, "failed"),
        (written.abort_rule, "failed:x"),
        (written.abort_rule, "failed:1:2:3"),
        (written.window, "0 2 * * *"),
        (written.window, "0 2 * * *:long"),
    ],
)
def test_what_cannot_be_read_is_named(parse, text) -> None:
    with pytest.raises(BadCommand) as refused:
        parse(text)
    assert refused.value.code == "command.invalid"
