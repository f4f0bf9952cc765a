"""A line that counts: a TCP proxy on loopback that keeps how many bytes each exchange takes.

What is counted are the bytes of HTTP as they go over the connection, heads and bodies, in both
directions. One side speaks at a time (HTTP/1.1, without pipelining), so an exchange begins where
the agent speaks again after the server has.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_PIECE_BYTES = 1 << 16


@dataclass
class Exchange:
    """One request with its answer. `up`, `down`: bytes to the server, and from it."""

    method: str
    path: str
    up: int = 0
    down: int = 0
    status: int = 0
    """Of the answer; 0 until it begins."""

    @property
    def total(self) -> int:
        """Bytes in both directions."""
        return self.up + self.down


@dataclass
class Line:
    """A line to `server`. `exchanges` are in the order in which they began."""

    server: tuple[str, int]
    listener: socket.socket
    exchanges: list[Exchange] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        """Where the agent finds the server."""
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        """Carry connections until the listener is closed."""
        while True:
            try:
                agent, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._carry, args=(agent,), daemon=True).start()

    def _carry(self, agent: socket.socket) -> None:
        with agent, contextlib.suppress(OSError), socket.create_connection(self.server) as server:
            said = _Said(self.exchanges)
            back = threading.Thread(target=_copy, args=(agent, server, said.asked), daemon=True)
            back.start()
            _copy(server, agent, said.answered)
            back.join()


class _Said:
    """What has been said on one connection."""

    def __init__(self, exchanges: list[Exchange]) -> None:
        self._exchanges = exchanges
        self._current: Exchange | None = None

    def asked(self, piece: bytes) -> None:
        if self._current is None or self._current.status:
            method, path = piece.split(b" ", 2)[:2]
            self._current = Exchange(method.decode(), path.decode())
            self._exchanges.append(self._current)
        self._current.up += len(piece)

    def answered(self, piece: bytes) -> None:
        assert self._current is not None
        if not self._current.status:
            self._current.status = int(piece.split(b" ", 2)[1])
        self._current.down += len(piece)


def _copy(source: socket.socket, target: socket.socket, note: Callable[[bytes], None]) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE_BYTES):
            note(piece)
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def line(server: tuple[str, int]) -> Iterator[Line]:
    """A line to the server, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Line(server, listener)
        thread = threading.Thread(target=made.serve)
        thread.start()
        try:
            yield made
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
