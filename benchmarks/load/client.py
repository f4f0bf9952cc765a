"""Simulated devices that poll a server, at a low cost of their own: sockets and `select`, no more.

    python -m benchmarks.load.client < plan.json      prints what was seen as JSON

**Open loop** (`rate` given): requests are due at random, independent times, as polls with jitter
are, whatever the answers do; a latency counts from the time a request was *due*, so a server that
stalls is charged for every request that had to wait. **Closed loop** (no `rate`): each connection
asks again as soon as it is answered, which finds the most that a server can do. SIGTERM ends a plan
early, in order.

Devices share keep-alive connections, as behind a proxy. `select` is used for its timeouts of
microseconds: `epoll` rounds them up to a millisecond, more than an answer takes.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import random
import select
import signal
import socket
import sys
import time
from array import array
from collections import deque
from dataclasses import asdict, dataclass

#: `select` cannot watch descriptors above 1023.
MOST_CONNECTIONS = 500
MOST_SECONDS = 600.0
MOST_REQUESTS = 5_000_000
#: How long answers may take after the last request was due.
GRACE_SECONDS = 10.0


class BadPlan(ValueError):
    """A plan that this tool refuses to run."""


def token_of(number: int) -> str:
    """The token of a simulated device, as long as real ones."""
    return hashlib.sha256(f"simulated device {number}".encode()).hexdigest()[:43]


@dataclass(frozen=True)
class Plan:
    """What to send where. `rate`: requests per second; None: closed loop."""

    port: int
    seconds: float
    path: str
    rate: float | None = None
    host: str = "127.0.0.1"
    connections: int = 32
    devices: int = 0
    """How many take their turns; 0: requests without a token."""
    first_device: int = 0
    etag: str | None = None
    seed: int = 0
    warm_up: float = 0.5
    """Seconds at the start that are sent but not counted."""

    def check(self) -> None:
        """Raise BadPlan for another machine than this one, or where there is no bound."""
        if not ipaddress.ip_address(self.host).is_loopback:
            raise BadPlan(f"{self.host} is not this machine: this tool loads loopback only")
        if not 0 < self.seconds <= MOST_SECONDS:
            raise BadPlan(f"{self.seconds} seconds; at most {MOST_SECONDS}")
        if not 0 < self.connections <= MOST_CONNECTIONS:
            raise BadPlan(f"{self.connections} connections; at most {MOST_CONNECTIONS}")
        if self.rate is not None and not 0 < self.rate * self.seconds <= MOST_REQUESTS:
            raise BadPlan(f"{self.rate * self.seconds} requests; at most {MOST_REQUESTS}")

    def requests(self) -> list[bytes]:
        """The bytes of one request for each device."""
        start = f"GET {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
        condition = f"If-None-Match: {self.etag}\r\n" if self.etag else ""
        if not self.devices:
            return [f"{start}{condition}\r\n".encode()]
        numbers = range(self.first_device, self.first_device + self.devices)
        return [
            f"{start}Authorization: Bearer {token_of(number)}\r\n{condition}\r\n".encode()
            for number in numbers
        ]


@dataclass(frozen=True)
class Seen:
    """What came of a plan; latencies in seconds."""

    answers: int
    per_second: float
    p50: float
    p99: float
    worst: float
    statuses: dict[str, int]
    lost: int
    """Requests that were due and not answered within the grace."""
    client_cpu: float
    """Share of one core that this tool itself took."""


class _Connection:
    """One keep-alive connection, with at most one request under way."""

    def __init__(self, plan: Plan) -> None:
        self.socket = socket.create_connection((plan.host, plan.port), timeout=GRACE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._pending = b""

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self.socket.sendall(request)

    def status(self) -> str | None:
        """Read; the status once the answer is whole. Raises ConnectionError where it is cut off."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed a connection")
        if self._pending:
            data = self._pending + data
        end = data.find(b"\r\n\r\n")
        if end < 0 or (data[9:12] not in (b"304", b"204") and not _is_whole(data, end)):
            self._pending = data
            return None
        self._pending = b""
        return data[9:12].decode()


def _is_whole(data: bytes, end: int) -> bool:
    head, body = data[:end].lower(), len(data) - end - 4
    _, found, length = head.partition(b"content-length:")
    if not found:
        raise ConnectionError("an answer without a length")
    return body >= int(length.split(b"\r\n", 1)[0])


class _Run:
    """One plan being carried out."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._requests = plan, plan.requests()
        self._free = deque(_Connection(plan) for _ in range(plan.connections))
        self._busy: dict[int, _Connection] = {}
        self._overdue: deque[float] = deque()
        self._sent = 0
        self._latencies, self._statuses = array("d"), dict[str, int]()
        self._counted_from = self._end = 0.0

    def run(self) -> Seen:
        """Send and watch until the end; requests still unanswered then get GRACE_SECONDS."""
        cpu, begin = time.process_time(), time.perf_counter()
        self._counted_from = begin + self._plan.warm_up
        self._end = self._counted_from + self._plan.seconds
        draw, due = random.Random(self._plan.seed), begin
        while (now := time.perf_counter()) < self._end:
            due = self._add_due(draw, due, now)
            self._send()
            self._watch(min(due, self._end))
        self._send()
        stop = self._end + GRACE_SECONDS
        while self._busy and time.perf_counter() < stop:
            self._watch(stop)
            self._send()
        share = (time.process_time() - cpu) / (time.perf_counter() - begin)
        return self._seen(share, max(self._end - self._counted_from, 1e-9))

    def stop(self, *_: object) -> None:
        """Let nothing more become due."""
        self._end = min(self._end, time.perf_counter())

    def _add_due(self, draw: random.Random, due: float, now: float) -> float:
        """Note what has become due; returns when something will be."""
        if self._plan.rate is None:
            self._overdue.extend([now] * (len(self._free) - len(self._overdue)))
            return self._end
        while due <= now:
            self._overdue.append(due)
            due += draw.expovariate(self._plan.rate)
        return due

    def _watch(self, until: float) -> None:
        seconds = max(0.0, until - time.perf_counter())
        readable, _, _ = select.select(list(self._busy), (), (), seconds)
        now = time.perf_counter()
        for descriptor in readable:
            self._hear(descriptor, now)

    def close(self) -> None:
        for connection in (*self._free, *self._busy.values()):
            connection.socket.close()

    def _send(self) -> None:
        while self._overdue and self._free:
            connection = self._free.popleft()
            self._busy[connection.socket.fileno()] = connection
            request = self._requests[self._sent % len(self._requests)]
            connection.send(request, self._overdue.popleft())
            self._sent += 1

    def _hear(self, descriptor: int, now: float) -> None:
        connection = self._busy[descriptor]
        status = connection.status()
        if status is None:
            return
        self._free.append(self._busy.pop(descriptor))
        if connection.due >= self._counted_from:
            self._latencies.append(now - connection.due)
            self._statuses[status] = self._statuses.get(status, 0) + 1

    def _seen(self, share: float, elapsed: float) -> Seen:
        ordered, answers = sorted(self._latencies), len(self._latencies)
        return Seen(
            answers=answers,
            per_second=answers / elapsed,
            p50=ordered[answers // 2] if answers else 0.0,
            p99=ordered[answers * 99 // 100] if answers else 0.0,
            worst=ordered[-1] if answers else 0.0,
            statuses=self._statuses,
            lost=len(self._busy) + len(self._overdue),
            client_cpu=share,
        )


def drive(plan: Plan, stoppable: bool = False) -> Seen:
    """Carry out the plan; `stoppable`: until SIGTERM comes.

    Raises BadPlan; OSError where the server is away.
    """
    plan.check()
    run = _Run(plan)
    if stoppable:
        signal.signal(signal.SIGTERM, run.stop)
    try:
        return run.run()
    finally:
        run.close()


def main() -> None:
    """Read a plan, carry it out, print what was seen."""
    print(json.dumps(asdict(drive(Plan(**json.load(sys.stdin)), stoppable=True))))


if __name__ == "__main__":
    main()
