"""What is noted of each answer: figures for Prometheus, and one line in the log.

A line names the route, not the address that was asked for: addresses can hold what somebody typed.
Polls and the questions of load balancers are `debug`, or nothing else could be found in the log.
"""

from __future__ import annotations

import logging

from starlette.types import Scope

from server import metrics
from server.logs import Trace
from shared.wire import DESIRED_PATH

log = logging.getLogger("weft.access")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
QUIET = frozenset({DESIRED_PATH, "/healthz", "/readyz", "/metrics"})
#: Fields that the message consists of.
SAID = frozenset({"method", "route", "status"})
POLL_STATUS = {200: "200", 304: "304"}


def note_answer(scope: Scope, trace: Trace, status: int, sent: int, seconds: float) -> None:
    """Count and log one answer. `status` 0: the client left before there was one."""
    path = scope["path"]
    route = path if path in QUIET else _route(scope)
    method = scope["method"] if scope["method"] in METHODS else "other"
    metrics.requests_by(route, method, str(status)).inc()
    if path == DESIRED_PATH:
        metrics.poll_seconds_by(POLL_STATUS.get(status, "other")).observe(seconds)
    else:
        metrics.request_seconds_by("device" if path.startswith("/device/") else "api").observe(
            seconds
        )
    if trace.package_method is not None and sent:
        metrics.PACKAGE_BYTES.labels(trace.package_method).inc(sent)
    level = logging.DEBUG if path in QUIET else logging.INFO
    if log.isEnabledFor(level):
        _write(level, trace, f"{method} {route} {status}", sent, seconds)


def _route(scope: Scope) -> str:
    """The route's template, so that there are no more of them than routes."""
    return getattr(scope.get("route"), "path", None) or "none"


def _write(level: int, trace: Trace, text: str, sent: int, seconds: float) -> None:
    method, route, status = text.split(" ")
    fields = {
        "method": method,
        "route": route,
        "status": int(status),
        "ms": round(seconds * 1000, 2),
        "bytes": sent,
        "actor": trace.actor or "nobody",
    }
    log.log(level, text, extra={"fields": fields, "said": SAID})
