"""A line that is slow and breaks: a TCP proxy on loopback that throttles, counts, and cuts.

All connections share the rate of what comes from the server. Each is cut, by RST, after a random
number of such bytes.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

#: Read from the server at a time; what an agent that is killed has not read yet is lost.
PIECE_BYTES = 1448


@dataclass
class Line:
    """`rate`: bytes a second towards the agent; `cut`: least and most of them until a cut."""

    server: tuple[str, int]
    rate: float
    cut: tuple[int, int]
    draw: random.Random
    listener: socket.socket
    down: int = 0
    connections: int = 0
    cuts: int = 0
    _free_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

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
            threading.Thread(target=self._carry, args=(agent,), daemon=True).start()

    def _carry(self, agent: socket.socket) -> None:
        with self._lock:
            self.connections += 1
            room = self.draw.randint(*self.cut)
        with agent, contextlib.suppress(OSError), socket.create_connection(self.server) as server:
            back = threading.Thread(target=_copy, args=(agent, server), daemon=True)
            back.start()
            self._down(server, agent, room)

    def _down(self, server: socket.socket, agent: socket.socket, room: int) -> None:
        """From the server to the agent, until one of them ends it or the line breaks."""
        while piece := server.recv(PIECE_BYTES):
            self._pace(len(piece))
            agent.sendall(piece)
            with self._lock:
                self.down += len(piece)
            room -= len(piece)
            if room <= 0:
                with self._lock:
                    self.cuts += 1
                agent.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                break
        # The other direction may be waiting for bytes; this ends it.
        for end in (agent, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RD)

    def _pace(self, nbytes: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + nbytes / self.rate
            pause = self._free_at - now
        time.sleep(pause)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def line(
    server: tuple[str, int], rate: float, cut: tuple[int, int], draw: random.Random
) -> Iterator[Line]:
    """A line to the server, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Line(server, rate, cut, draw, listener)
        thread = threading.Thread(target=made.serve)
        thread.start()
        try:
            yield made
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
