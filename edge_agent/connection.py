"""HTTP/1.1 to one server, directly or by a proxy: bounded in bytes and in time, and counted.

Whatever is at the other end (a server, a proxy, the portal of a hotel) can make the agent receive
no more than `Limits` says, nor wait longer: silence, drops now and then, heads without an end and
interim answers without an end all end in ServerAway. Bodies are handed on as they come, never
decoded. Redirects are answers like any other, so that a token goes nowhere else.

This stands on httpcore, the lower half of httpx: it has a place to count bytes below HTTP, and
costs an idle agent 6 MB less memory.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import httpcore

from edge_agent import tls
from edge_agent.config import Config
from edge_agent.errors import ServerAway
from edge_agent.proxy import Proxy, proxy_for
from edge_agent.stopping import STOP

#: Room for a status line and headers, interim answers and the framing of a body among them.
HEAD_BYTES = 1 << 16
#: An answer must have begun after this, however busily the other end sends; time-outs are shorter.
HEAD_SECONDS = 120.0
#: Slower than this many bytes in this much time spent reading, an exchange is given up.
SLOWEST_BYTES, SLOWEST_SECONDS = 1024, 60.0
#: A connection is used again within this time.
IDLE_SECONDS = 5.0
#: To one address; a name may have several, and no sign of life is given meanwhile.
CONNECT_SECONDS = 60.0
#: Between two signs of life while an answer is waited for.
TURN_SECONDS = 0.5

_BROKEN = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)


@dataclass(frozen=True)
class Answer:
    """An answer whose body is unread. Names of headers are in lower case, repeated ones joined."""

    status: int
    reason: str
    path: str
    headers: Mapping[str, str]
    body: Iterator[bytes]

    @property
    def is_success(self) -> bool:
        """Whether the status says so."""
        return 200 <= self.status < 300


class Connection:
    """Sends requests to one server, one at a time.

    `count` is told of all bytes, both ways; `beat` is called often while an answer is waited for.
    Raises BadConfig.
    """

    def __init__(
        self,
        config: Config,
        agent: str,
        count: Callable[[int], None],
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._server, self._timeout = config.server, config.timeout_seconds
        self._headers = {"User-Agent": agent}
        self._limits = _Limits(count, beat)
        network = _Counting(self._limits, config.server_pins)
        self._pool = _pool(config, proxy_for(config), network)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    @contextlib.contextmanager
    def exchange(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        body_bytes: int,
        body_seconds: float | None,
    ) -> Iterator[Answer]:
        """Send a request and give the answer, whose body may take so many bytes and so long.

        Raises ServerAway, also while the body is read.
        """
        timeouts = dict.fromkeys(("read", "write", "pool"), self._timeout)
        timeouts["connect"] = min(self._timeout, CONNECT_SECONDS)
        self._limits.allow(HEAD_BYTES, HEAD_SECONDS)
        try:
            with self._pool.stream(
                method,
                self._server + path,
                headers=[*self._headers.items(), *headers.items()],
                content=body,
                extensions={"timeout": timeouts},
            ) as response:
                self._limits.allow(body_bytes + HEAD_BYTES, body_seconds)
                yield _answer(response, path)
        except _BROKEN as error:
            where = f"{self._server}{path}"
            raise ServerAway(f"{where}: {_told(error)}", code=_code(error)) from error


class _Limits:
    """What the present exchange may still take; raises what httpcore itself would raise."""

    def __init__(self, count: Callable[[int], None], beat: Callable[[], None]) -> None:
        self.count, self.beat = count, beat
        self.allow(0, None)

    def allow(self, nbytes: int, seconds: float | None) -> None:
        """Let so many bytes come from now on, and for so long."""
        self._room = nbytes
        self._until = None if seconds is None else monotonic() + seconds
        self._in_time, self._seconds = 0, 0.0

    def patience(self, timeout: float | None) -> float | None:
        """Seconds to wait for the next bytes."""
        if self._until is None:
            return timeout
        left = self._until - monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the answer takes too long")
        return left if timeout is None else min(left, timeout)

    def received(self, nbytes: int, seconds: float) -> None:
        """Take note of bytes and of the time that was spent waiting for them."""
        self.count(nbytes)
        self._room -= nbytes
        if self._room < 0:
            raise httpcore.RemoteProtocolError("the answer is longer than any that is expected")
        self._in_time += nbytes
        self._seconds += seconds
        if self._seconds < SLOWEST_SECONDS:
            return
        if self._in_time < SLOWEST_BYTES:
            raise httpcore.ReadTimeout(f"only {self._in_time} bytes came in {self._seconds:.0f} s")
        self._in_time, self._seconds = 0, 0.0


class _Stream(httpcore.NetworkStream):
    """A connection of httpcore's, within limits."""

    def __init__(
        self, stream: httpcore.NetworkStream, limits: _Limits, pins: Collection[str]
    ) -> None:
        self._stream, self._limits, self._pins = stream, limits, pins

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        patience = self._limits.patience(timeout)
        began = monotonic()
        piece = self._read_in_turns(max_bytes, patience)
        self._limits.received(len(piece), monotonic() - began)
        return piece

    def _read_in_turns(self, max_bytes: int, patience: float | None) -> bytes:
        """Wait for bytes, with signs of life; raises ReadTimeout when `patience` is over."""
        left = float("inf") if patience is None else patience
        while True:
            self._limits.beat()
            turn = min(left, TURN_SECONDS)
            try:
                return self._stream.read(max_bytes, turn)
            except httpcore.ReadTimeout:
                left -= turn
                if left <= 0:
                    raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._limits.count(len(buffer))
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, timeout)
        certificate = stream.get_extra_info("ssl_object").getpeercert(True)
        if not tls.is_pinned(certificate, self._pins):
            stream.close()
            raise _WrongKey(f"the server's key is {tls.key_digest(certificate)}, and not pinned")
        return _Stream(stream, self._limits, self._pins)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _WrongKey(httpcore.ConnectError):
    """The other end has a certificate that is valid, and a key that is none of the pinned ones."""


class _Counting(httpcore.NetworkBackend):
    """Connects as httpcore does, within limits."""

    def __init__(self, limits: _Limits, pins: Collection[str]) -> None:
        self._plain, self._limits, self._pins = httpcore.SyncBackend(), limits, pins

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        self._limits.beat()
        with STOP:
            stream = self._plain.connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(stream, self._limits, self._pins)


def _pool(config: Config, proxy: Proxy | None, network: _Counting) -> httpcore.ConnectionPool:
    trusted = tls.trusting(config.server_ca) if config.server.startswith("https") else None
    if proxy is None:
        return httpcore.ConnectionPool(
            ssl_context=trusted, keepalive_expiry=IDLE_SECONDS, network_backend=network
        )
    return httpcore.HTTPProxy(
        proxy_url=proxy.url,
        proxy_auth=proxy.login,
        ssl_context=trusted,
        keepalive_expiry=IDLE_SECONDS,
        network_backend=network,
    )


def _answer(response: httpcore.Response, path: str) -> Answer:
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    reason = response.extensions.get("reason_phrase", b"").decode("latin-1")
    return Answer(response.status, reason, path, headers, response.iter_stream())


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__


def _code(error: Exception) -> str:
    """Whether the other end is not who it should be, or only away."""
    refused = isinstance(error.__context__, ssl.SSLCertVerificationError)
    return "untrusted" if refused or isinstance(error, _WrongKey) else "unreachable"
