"""Who is let in: decided from the head of a request alone, before any work.

In this order:
1. heads that are too large (431, 414) or hold NUL characters (422) are refused;
2. under overload devices' polls are sent away (503), so that reports and operators get through;
3. whoever asks too often is told to wait (429): devices by their token, others by their address.

`Retry-After` tells when to come back; that of a poll is drawn at random, so that those sent away
together do not return together.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Any

from starlette.types import Scope

from server import metrics
from server.api.limits import Buckets
from server.errors import BadRequest, ServerError
from server.settings import Settings
from shared.errors import WeftError
from shared.wire import DESIRED_PATH, ENROL_PATH, TOKEN_PATH

#: Bytes of all header names and values, and of the query; parameters of one query.
MAX_HEAD_BYTES = 32 * 1024
MAX_QUERY_BYTES = 8 * 1024
MAX_PARAMETERS = 50

#: Never limited: whoever watches the server must not be sent away.
ALWAYS_OPEN = frozenset({"/healthz", "/readyz"})

#: Asked by devices that show no token: whatever stands in its place is made up.
WITHOUT_TOKEN = frozenset({ENROL_PATH, TOKEN_PATH})


class RateLimited(BadRequest):
    """Somebody asks too often."""

    def __init__(self, wait: float) -> None:
        seconds = max(1, math.ceil(wait))
        super().__init__("rate_limited", f"too many requests; the next one is due in {seconds} s")
        self.headers = {"Retry-After": str(seconds)}


class Overloaded(ServerError):
    """More requests are in work than the server takes on."""

    def __init__(self, wait: float) -> None:
        seconds = max(1, round(wait))
        super().__init__("overloaded", "more requests are in work than this server takes on")
        self.headers = {"Retry-After": str(seconds)}


class Gate:
    """Decides for each request; the middleware keeps `in_work`."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        burst = settings.rate_burst
        self._devices = Buckets(settings.rate_devices, burst)
        self._enrolments = Buckets(settings.rate_enrolments, burst)
        self._others = Buckets(settings.rate_others, burst)
        self._most = settings.max_in_work or math.inf
        self._interval = settings.poll_interval
        self._clock = clock
        self._random = random.Random()  # noqa: S311 - jitter, no secret
        self.in_work = 0
        """Requests whose answer has not begun: downloads under way are no load."""

    def refusal(self, scope: Scope, head_bytes: int, authorization: bytes) -> WeftError | None:
        """Why this request is not let in; None: it is."""
        path: str = scope["path"]
        error = _unfit(path, scope["query_string"], head_bytes)
        if error is not None:
            return error
        if path == DESIRED_PATH and self.in_work > self._most:
            metrics.TURNED_AWAY.labels("overloaded").inc()
            return Overloaded(self._interval * self._random.uniform(0.5, 1.5))
        wait = self._wait(scope, path, authorization)
        if wait:
            metrics.TURNED_AWAY.labels("rate_limited").inc()
            return RateLimited(wait)
        return None

    def _wait(self, scope: Scope, path: str, authorization: bytes) -> float:
        at = self._clock()
        if path.startswith("/device/"):
            if path in WITHOUT_TOKEN or not authorization:
                return self._enrolments.wait(_address(scope), at)
            return self._devices.wait(hash(authorization), at)
        return 0.0 if path in ALWAYS_OPEN else self._others.wait(_address(scope), at)


def _address(scope: Scope) -> Any:
    """The client's address; None where it came through a Unix socket."""
    client = scope.get("client")
    return client and client[0]


def _unfit(path: str, query: bytes, head_bytes: int) -> WeftError | None:
    """What no route should see: too much, or NUL characters, which no database compares with."""
    if "\0" in path or b"%00" in query:
        return BadRequest("invalid", "NUL characters are not taken")
    if head_bytes > MAX_HEAD_BYTES:
        return BadRequest("headers_too_large", f"the headers are above {MAX_HEAD_BYTES} bytes")
    if query:
        if len(query) > MAX_QUERY_BYTES:
            return BadRequest("query_too_long", f"the query is above {MAX_QUERY_BYTES} bytes")
        if query.count(b"&") >= MAX_PARAMETERS:
            return BadRequest("query_too_long", f"the query has over {MAX_PARAMETERS} parameters")
    return None
