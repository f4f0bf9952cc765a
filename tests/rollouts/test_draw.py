"""The order in which devices are drawn, and the windows in which they are offered something."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.rollouts import windows
from server.rollouts.draw import P, lot_of, numbers_of, place_of

IDS = [str(uuid.UUID(int=n, version=4)) for n in range(2000)]


@given(lot=st.integers(0, 2**31 - 1), rollout=st.integers(1, 2**31 - 1))
def test_places_never_need_more_than_63_bits(lot: int, rollout: int) -> None:
    a, b = numbers_of(rollout)
    assert 1 <= a < P
    assert 0 <= lot * a + b < 2**63
    assert 0 <= place_of(lot, rollout) < P


def test_the_first_tenth_is_another_one_in_each_rollout() -> None:
    def first(rollout: int) -> set[str]:
        return set(sorted(IDS, key=lambda id_: place_of(lot_of(id_), rollout))[:200])

    common = [len(first(n) & first(n + 1)) for n in range(1, 30)]
    assert 15 < sum(common) / len(common) < 25  # 20 are expected by chance
    assert max(common) < 60
    assert lot_of("a") == 0xCA978112 >> 1  # SHA-256 of "a" begins so: it must never change


NIGHT = {"cron": "0 2 * * *", "duration_seconds": 14_400, "time_zone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("at", "is_open"),
    [
        ("2026-07-01T00:00:00", True),  # 2 o'clock in Berlin's summer
        ("2026-06-30T23:59:59", False),
        ("2026-07-01T03:59:59", True),
        ("2026-07-01T04:00:00", False),
        ("2026-12-01T00:30:00", False),  # in winter an hour later
        ("2026-12-01T01:00:00", True),
        ("2026-03-29T01:00:00", True),  # that night has no 2 o'clock: it opens at 3
    ],
)
def test_a_window_follows_its_time_zone(at: str, is_open: bool) -> None:
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert windows.is_open(NIGHT, moment) == is_open


@given(minutes=st.integers(0, 60 * 24 * 400))
def test_it_is_shut_until_the_next_opening(minutes: int) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    opening = windows.next_opening(NIGHT, at)
    assert opening is not None
    assert at < opening <= at + timedelta(days=1, hours=1)
    assert windows.is_open(NIGHT, opening)
    assert not windows.is_open(NIGHT, opening - timedelta(seconds=1))


def test_without_a_window_it_is_always_open() -> None:
    assert windows.is_open(None, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    "cron", ["", "* * * *", "0 0 * * * *", "61 * * * *", "0 0 31 2 *", "a b c d e", "*/0 * * * *"]
)
def test_no_cron_line_is_refused(cron: str) -> None:
    with pytest.raises(ValueError, match=r"cron|time"):
        windows.check_cron(cron)


@pytest.mark.parametrize("name", ["", "Europe", "Mars/Base", "../etc/passwd", "/etc/localtime"])
def test_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="time zone"):
        windows.check_zone(name)
