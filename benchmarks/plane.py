"""A server of the device plane on loopback, just enough for one agent that is being measured."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast
from urllib.parse import parse_qsl

from shared import wire
from tests.signing import Repository, Roots

#: The one model of the device.
MODEL = "resnet18"
TOKEN = "0123456789abcdef"


class Plane:
    """What the server wants and holds, and what the agent asked, with the time of it."""

    def __init__(self, interval: float) -> None:
        self.interval = interval  # seconds between polls
        self.url = ""
        self.polls: queue.SimpleQueue[float] = queue.SimpleQueue()  # perf_counter() of each
        self.reports: queue.SimpleQueue[wire.Report] = queue.SimpleQueue()
        self._generation, self._desired = 1, wire.Desired()
        self._packages: dict[str, Path] = {}
        self.roots = Roots()
        self._repository = Repository(MODEL, self.roots)

    @property
    def token(self) -> str:
        """What a device enrols with."""
        return self.roots.token(TOKEN)

    def want(self, model: wire.DesiredModel, package: Path) -> None:
        """Release and offer this from now on."""
        offer = model.package
        assert offer is not None
        self._repository.release(model.version, model.weights_digest)
        told = (offer.sha256, offer.size, offer.base_digest, model.weights_digest, offer.method)
        self._repository.offer(*told)
        self._packages[offer.sha256] = package
        self._desired = wire.Desired(models=[model])
        self._generation += 1

    def desired(self) -> tuple[str, bytes]:
        """The answer to a poll, and its ETag."""
        self.polls.put(time.perf_counter())
        return f'"{self._generation}"', self._desired.model_dump_json().encode()

    def metadata(self, query: str) -> bytes | None:
        """What a device lacks that holds these versions."""
        return self._repository.answer({role: int(held) for role, held in parse_qsl(query)})

    def package(self, sha256: str) -> bytes:
        """Its bytes."""
        return self._packages[sha256].read_bytes()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def plane(self) -> Plane:
        return cast("_Server", self.server).plane

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path.startswith(wire.METADATA_PATH):
            answer = self.plane.metadata(query)
            self._answer(200 if answer else 204, answer)
            return
        if path != wire.DESIRED_PATH:
            self._answer(200, self.plane.package(self.path.rpartition("/")[2]))
            return
        etag, body = self.plane.desired()
        headers = {"ETag": etag, wire.POLL_INTERVAL_HEADER: str(self.plane.interval)}
        if self.headers.get("If-None-Match") == etag:
            self._answer(304, None, headers)
        else:
            self._answer(200, body, headers)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == wire.ENROL_PATH:
            roots = [root.decode() for root in self.plane.roots.files]
            given = wire.Enrolled(device_id="device", token=TOKEN, roots=roots)
            self._answer(201, given.model_dump_json().encode())
        else:
            self.plane.reports.put(wire.Report.model_validate_json(body))
            self._answer(200, b"{}")

    def _answer(
        self, status: int, body: bytes | None, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if body is not None:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body or b"")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    plane: Plane

    def handle_error(self, *_: object) -> None:
        """An agent that is ended leaves its connections as they are."""


@contextmanager
def serving(interval: float) -> Iterator[Plane]:
    """A plane that answers on loopback until the block ends."""
    plane = Plane(interval)
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.plane = plane
        plane.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield plane
        server.shutdown()
        thread.join()
