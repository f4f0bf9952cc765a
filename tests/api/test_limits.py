"""Token buckets: what they let through, and what they remember."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.api.limits import Buckets


def test_a_burst_passes_and_then_the_rate():
    buckets = Buckets(rate=2.0, burst=3.0)
    assert [buckets.wait("a", 100.0) for _ in range(6)] == [0.0] * 6
    assert buckets.wait("a", 100.0) == 0.5
    assert buckets.wait("a", 100.5) == 0.0
    assert buckets.wait("b", 100.5) == 0.0


def test_zero_is_no_limit_and_remembers_nobody():
    buckets = Buckets(rate=0.0, burst=1.0)
    assert not any(buckets.wait("a", 0.0) for _ in range(1000))
    assert len(buckets) == 0


def test_without_a_burst_one_request_passes_at_a_time():
    buckets = Buckets(rate=1.0, burst=0.0)
    assert [buckets.wait("a", at) for at in (5.0, 5.5, 6.0)] == [0.0, 0.5, 0.0]


def test_memory_is_bounded_and_the_quiet_are_forgotten():
    buckets = Buckets(rate=1.0, burst=10.0, max_keys=100)
    for key in range(1000):
        buckets.wait(key, 1.0)
    assert len(buckets) <= 200
    buckets.wait("late", 100.0)
    assert len(buckets) == 1


@given(
    gaps=st.lists(st.floats(0.0, 3.0), max_size=60),
    rate=st.floats(0.5, 20.0),
    burst=st.floats(0.0, 5.0),
)
def test_no_time_brings_more_than_burst_and_rate_together(gaps, rate, burst):
    buckets, at, passed = Buckets(rate, burst), 1000.0, list[float]()
    for gap in gaps:
        at += gap
        wait = buckets.wait("a", at)
        if wait:
            assert buckets.wait("a", at + wait + 1e-6) == 0.0  # as promised
            at += wait + 1e-6
        passed.append(at)
    for first, start in enumerate(passed):
        for last in range(first, len(passed)):
            most = max(burst, 1 / rate) * rate + (passed[last] - start) * rate
            assert last - first + 1 <= most + 1 + 1e-6
