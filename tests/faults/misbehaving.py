"""A server that misbehaves in one way at a time, and counts what the agent makes it send.

A fault is a function of the handler of one request: it writes to the connection whatever it likes,
below HTTP. Without a fault, the server is the device plane of `tests/edge_agent/plane.py`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any, TypeAlias

from tests.edge_agent.plane import Handler, Plane

#: What a fault does with a request, and when the server waits: until the fault is over.
Act: TypeAlias = Callable[["Misbehaving"], None]


@dataclass
class Site:
    """The plane, what is wrong with the server now, and what it has sent meanwhile."""

    plane: Plane
    act: Act | None = None
    where: str = ""
    left: int = 0
    wrap: Callable[[socket.socket], socket.socket] | None = None
    sent: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def misbehave(self, act: Act, where: str, times: int) -> None:
        """Answer the next so many requests whose path contains `where` by `act`."""
        self.over.clear()
        self.act, self.where, self.left, self.sent = act, where, times, 0
        self.plane.requests.clear()

    def behave(self) -> None:
        """Be a good server again."""
        self.act = None
        self.over.set()


class Misbehaving(Handler):
    """One connection; `send` writes raw bytes, counted like all others."""

    site: Site

    def setup(self) -> None:
        if self.site.wrap:
            self.request = self.site.wrap(self.request)
        super().setup()
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.wfile = _Counted(self.wfile, self.site)  # type: ignore[assignment]

    def finish(self) -> None:
        super().finish()
        self.request.close()  # that of TLS: the server closes only the one that it made

    def _faulty(self) -> bool:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.plane.requests.append((self.command, self.path, headers))
        site = self.site
        if site.act is None or site.where not in self.path or site.left <= 0:
            return False
        site.left -= 1
        site.act(self)
        return True

    @property
    def data(self) -> bytes:
        """The package that is asked for."""
        return self.plane.files[self.path.rpartition("/")[2]]

    @property
    def etag(self) -> str:
        return f'"{self.path.rpartition("/")[2]}"'

    @property
    def start(self) -> int:
        """The first byte that is asked for."""
        asked = self.headers.get("Range", "bytes=0-")
        return int(asked.removeprefix("bytes=").partition("-")[0])

    def send(self, *parts: bytes | str) -> None:
        """Bytes as they are, each part by itself."""
        for part in parts:
            self.wfile.write(part.encode("latin-1") if isinstance(part, str) else part)
            self.wfile.flush()

    def head(self, status: str, **headers: str) -> None:
        """A status line and headers, with `_` for `-`, and nothing that was not asked for."""
        lines = [f"HTTP/1.1 {status}", *(f"{n.replace('_', '-')}: {v}" for n, v in headers.items())]
        self.send("\r\n".join(lines) + "\r\n\r\n")

    def hang_up(self) -> None:
        """Close the connection, in order."""
        self.close_connection = True

    def reset(self) -> None:
        """Close the connection by RST."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.hang_up()

    def wait_until_over(self) -> None:
        """Be silent for as long as the fault lasts."""
        self.site.over.wait()
        self.hang_up()

    def for_ever(self, piece: bytes, pause: float = 0.0) -> None:
        """Send until the other end has had enough."""
        with contextlib.suppress(OSError):
            while not self.site.over.wait(pause):
                self.send(piece)
        self.hang_up()


class _Counted:
    """A file that counts what is written to it."""

    def __init__(self, file: Any, site: Site) -> None:
        self._file, self._site = file, site

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self._site.sent += len(data)
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def get_request(self) -> Any:
        connection, peer = super().get_request()
        # What the kernel takes counts as sent: little, so that an end is noticed soon.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
        return connection, peer

    def handle_error(self, *_: object) -> None:
        """Nothing: that connections break is what this is about."""


@contextlib.contextmanager
def misbehaving(plane: Plane, scheme: str = "http") -> Iterator[Site]:
    """A server on loopback, ended with the block; well behaved until it is told otherwise."""
    site = Site(plane)
    handler = type("SiteHandler", (Misbehaving,), {"plane": plane, "site": site})
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        plane.url = f"{scheme}://127.0.0.1:{server.server_port}"
        try:
            yield site
        finally:
            site.behave()
            server.shutdown()
            thread.join()
