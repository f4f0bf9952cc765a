"""What this process counts and times for Prometheus; `docs/operations.md` explains each metric.

One registry of our own, so that no library adds to it. Every server process has its own figures;
what is read from the database at each scrape is in `server/service/fleet.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # they answer no question

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

#: Upper bounds in seconds: of a poll, of any request, of building a package.
POLL_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
REQUEST_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 600.0)
BUILD_BUCKETS = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)

REQUESTS = Counter(
    "weft_http_requests",
    "Requests answered, by route, method and status.",
    ["route", "method", "status"],
    registry=REGISTRY,
)
REQUEST_SECONDS = Histogram(
    "weft_http_request_duration_seconds",
    "Time from a request to the end of its answer, without polls.",
    ["plane"],
    buckets=REQUEST_BUCKETS,
    registry=REGISTRY,
)
POLL_SECONDS = Histogram(
    "weft_poll_duration_seconds",
    "Time from a device's poll to the end of its answer: 200, 304 or other.",
    ["status"],
    buckets=POLL_BUCKETS,
    registry=REGISTRY,
)
TURNED_AWAY = Counter(
    "weft_http_requests_turned_away",
    "Requests refused before any work: rate_limited or overloaded.",
    ["reason"],
    registry=REGISTRY,
)
KEYS_REFUSED = Counter(
    "weft_keys_refused",
    "Requests of operators refused: missing or wrong key, too low a role, beyond its scope.",
    ["reason"],
    registry=REGISTRY,
)
PACKAGE_BYTES = Counter(
    "weft_package_sent_bytes",
    "Bytes of update packages sent, by method.",
    ["method"],
    registry=REGISTRY,
)
BUILD_SECONDS = Histogram(
    "weft_package_build_duration_seconds",
    "Time to build a package and decode it again, by method and outcome: built or failed.",
    ["method", "outcome"],
    buckets=BUILD_BUCKETS,
    registry=REGISTRY,
)
WEBHOOK_ATTEMPTS = Counter(
    "weft_webhook_attempts",
    "Attempts to deliver an event to a webhook, by outcome: delivered or failed.",
    ["outcome"],
    registry=REGISTRY,
)
RETENTION_REMOVED = Counter(
    "weft_retention_removed",
    "What retention has removed, by kind.",
    ["kind"],
    registry=REGISTRY,
)
DUTY_FAILURES = Counter(
    "weft_duty_failures",
    "Turns of a background duty that ended in an error, by duty.",
    ["duty"],
    registry=REGISTRY,
)

#: Looking a child up by its labels costs more than counting with it.
requests_by = lru_cache(4096)(REQUESTS.labels)
poll_seconds_by = lru_cache(8)(POLL_SECONDS.labels)
request_seconds_by = lru_cache(8)(REQUEST_SECONDS.labels)


@contextmanager
def timing_build(method: str) -> Iterator[None]:
    """Time the building of a package by a method that exists."""
    started, outcome = time.perf_counter(), "failed"
    try:
        yield
        outcome = "built"
    finally:
        BUILD_SECONDS.labels(method, outcome).observe(time.perf_counter() - started)
