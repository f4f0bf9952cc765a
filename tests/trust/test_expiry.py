"""Before anything expires somebody is told: in the log, by a metric, and for `weft doctor`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

import pytest
from prometheus_client import Metric

from server.db import reading
from server.service.fleet import Fleet
from server.tables import now
from server.trust.expiry import CONCERN, Concern
from shared.metadata import PACKAGES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from tests.trust.shop import Shop, TufDevice

Make = Callable[..., TufDevice]
DAY = timedelta(days=1)
LIVES = {ROOT: 730, TARGETS: 365, PACKAGES: 30, SNAPSHOT: 30, TIMESTAMP: 14}


@pytest.fixture
def listed(shop: Shop) -> Shop:
    shop.release(1)
    return shop


def concerns(shop: Shop, days: float) -> list[Concern]:
    with reading(shop.engine) as session:
        return shop.trust.concerns(session, now() + timedelta(days=days))


def test_all_that_is_in_use_is_told_with_its_end(listed: Shop, device: Make) -> None:
    listed.trust.renew(now() + 20 * DAY)
    with reading(listed.engine) as session:
        found = listed.trust.expiries(session)
    camera = device()
    camera.refresh()
    assert [(e.model, e.role) for e in found] == [
        (None, ROOT),
        *(("m", role) for role in sorted((PACKAGES, SNAPSHOT, TARGETS, TIMESTAMP))),
    ]
    assert {e.role: e.version for e in found} == camera.versions
    ends = {e.role: round((e.expires_at - now()) / DAY) for e in found}
    assert ends == LIVES | {role: LIVES[role] + 20 for role in (PACKAGES, SNAPSHOT, TIMESTAMP)}


def test_nothing_is_a_concern_while_it_is_renewed(listed: Shop) -> None:
    for days in range(7, 420, 7):
        listed.trust.renew(now() + days * DAY)
        assert concerns(listed, days) == []


@pytest.mark.parametrize("role", LIVES)
def test_each_role_is_a_concern_in_good_time(listed: Shop, role: str) -> None:
    name = "root" if role == ROOT else {TARGETS: "release"}.get(role, role) + " of m"
    first = LIVES[role] - CONCERN[role].days
    assert name not in {c.about for c in concerns(listed, first - 1)}
    soon = {c.about: c for c in concerns(listed, first + 1)}[name]
    assert (soon.found, soon.is_failing) == (f"expires in {CONCERN[role].days - 2} days", False)
    late = {c.about: c for c in concerns(listed, LIVES[role] + 3)}[name]
    assert late.found == "expired 3 days ago: devices install nothing new"
    assert late.is_failing


def test_what_is_to_be_done_depends_on_where_the_key_lies(listed: Shop) -> None:
    def todo() -> str:
        return {c.about: c.todo for c in concerns(listed, 340)}["release of m"]

    assert todo() == "The server renews it: see its log for why it does not."
    listed.take_offline(TARGETS)
    assert todo() == "Sign the list of versions anew: `weft keys renew release`."


def test_the_log_tells_each_concern_once_a_day(
    listed: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    listed.take_offline(ROOT, TARGETS)

    def told(days: float) -> list[tuple[int, str]]:
        caplog.clear()
        listed.trust.renew(now() + timedelta(days=days))
        return [(record.levelno, record.getMessage()) for record in caplog.records]

    assert told(100) == []
    [(level, text)] = told(310)
    assert level == logging.WARNING
    assert text.startswith("release of m: expires in 54 days. Sign the list of versions anew")
    assert told(310.9) == []
    assert len(told(311.1)) == 1
    assert [level for level, _ in told(370)] == [logging.ERROR]


def test_the_metric_says_what_expires_first(listed: Shop) -> None:
    listed.register("other", versions=1)
    listed.release(1, name="other")
    listed.trust.renew(now() + 8 * DAY)

    def metric() -> Metric:
        found = {m.name: m for m in Fleet(listed.engine).collect()}
        return found["weft_metadata_expiry_timestamp_seconds"]

    ends = {s.labels["role"]: (s.value - now().timestamp()) / 86400 for s in metric().samples}
    assert {role: round(days) for role, days in ends.items()} == LIVES | {TIMESTAMP: 22}
