"""A small server that speaks the device plane, weights and packages for it, and agents."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from edge_agent.agent.loop import Agent, running
from edge_agent.config import Config
from edge_agent.heavy.inline import Inline
from edge_agent.trust import promises
from server.packaging.encode import BuildReport, build_package
from shared import wire
from shared.metadata import CONTENT_TYPE, ROLES
from shared.weights import WeightsReader, write_weights
from tests.device_keys import has_signed
from tests.signing import Repository, Roots

MODEL = "digits"
SHAPES = {"body.weight": (24, 40), "body.bias": (24,), "head.weight": (10, 24), "head.bias": (10,)}
PACKAGES = (("full", 0, 1), ("full", 0, 2), ("full", 0, 3), ("xor", 1, 2), ("xor", 2, 3))


@dataclass(frozen=True)
class Shelf:
    """Three versions of a model and the packages between them."""

    weights: dict[int, Path]
    digests: dict[int, str]
    packages: dict[str, BuildReport]

    def wanted(
        self,
        version: int,
        package: str | None,
        assignment: int | None = 1,
        *,
        rollback: bool = True,
    ) -> wire.DesiredModel:
        """The version, by one package or from a slot; `rollback`: also where it leads back."""
        built = self.packages[package] if package else None
        offer = built and {
            "sha256": built.sha256,
            "size": built.size,
            "url": f"{wire.PACKAGES_PATH}/{built.sha256}",
            "base_digest": built.base_digest,
            "method": package.split("-")[0] if package else "",
        }
        return wire.DesiredModel.model_validate(
            {
                "model": MODEL,
                "version": version,
                "weights_digest": self.digests[version],
                "assignment": assignment,
                "package": offer,
                "rollback": rollback,
            }
        )


def make_shelf(folder: Path, changing: Collection[str] = ("head.weight",)) -> Shelf:
    """`changing`: tensors that differ from version to version."""
    rng = np.random.default_rng(7)
    tensors = {name: rng.standard_normal(shape).astype("f4") for name, shape in SHAPES.items()}
    weights: dict[int, Path] = {}
    for version in (1, 2, 3):
        weights[version] = folder / f"{version}.safetensors"
        write_weights(weights[version], {name: ("F32", array) for name, array in tensors.items()})
        tensors |= {name: tensors[name] + np.float32(0.01) for name in changing}
    packages = {
        f"{method}-{old or ''}{new}": build_package(
            weights.get(old), weights[new], method, {}, folder / f"{method}{old}{new}", MODEL
        )
        for method, old, new in PACKAGES
    }
    digests = {version: WeightsReader(path).digest().hex() for version, path in weights.items()}
    return Shelf(weights, digests, packages)


#: The one device that this plane knows.
DEVICE_ID = "device-1"


@dataclass
class Plane:
    """The device plane of a server, in memory. `faults` replace the answers to single requests.

    `signs`: whatever is wanted is released, and its packages are listed. `forged`: what is answered
    in place of the signed metadata that a device lacks, given the versions that it holds.
    """

    token: str = "device-token-1"
    secret: str = "enrolment-token"
    generation: int = 1
    interval: str | None = "30"
    models: dict[str, wire.DesiredModel] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    """The public keys of the devices that enrolled; only what they sign is taken."""
    pending: bool = False
    held: str | None = None
    enrolments: list[wire.Enrolment] = field(default_factory=list)
    renewals: list[wire.Renewal] = field(default_factory=list)
    reports: list[wire.Report] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    faults: list[Callable[[Any], bool]] = field(default_factory=list)
    signs: bool = True
    forged: Callable[[dict[str, int]], bytes | None] | None = None
    roots: Roots = field(default_factory=Roots)
    repositories: dict[str, Repository] = field(default_factory=dict)
    url: str = ""

    @property
    def enrolment_token(self) -> str:
        """As it is handed out: with the root's SHA-256."""
        return self.roots.token(self.secret)

    def offer(self, shelf: Shelf, wanted: wire.DesiredModel | None) -> None:
        """Want this, and nothing else, from now on."""
        self.generation += 1
        self.models = {wanted.model: wanted} if wanted else {}
        self.add_packages(shelf)

    def add_packages(self, shelf: Shelf) -> None:
        self.files |= {b.sha256: b.path.read_bytes() for b in shelf.packages.values()}
        if self.signs:
            self.sign(shelf)

    def sign(self, shelf: Shelf) -> None:
        """Release all versions, and list all packages."""
        repository = self.repository(MODEL)
        for number, digest in shelf.digests.items():
            repository.release(number, digest)
        for name, built in shelf.packages.items():
            size, method = built.size, name.split("-")[0]
            result = built.result_digest
            repository.offer(built.sha256, size, built.base_digest, result, method)

    def release(self, wanted: wire.DesiredModel) -> None:
        """Sign that devices may install it, by these packages."""
        repository = self.repository(wanted.model)
        repository.release(wanted.version, wanted.weights_digest)
        for promise in promises(wanted):
            offer, result = promise.offer, promise.result
            repository.offer(offer.sha256, offer.size, offer.base_digest, result, offer.method)

    def signed(self, wanted: wire.DesiredModel) -> bytes:
        """The metadata that come with a bundle of it."""
        self.release(wanted)
        return self.repository(wanted.model).answer({}) or b""

    def repository(self, model: str) -> Repository:
        """The signed metadata of a model."""
        return self.repositories.setdefault(model, Repository(model, self.roots))

    def asked(self, path: str) -> list[dict[str, str]]:
        """The headers of all requests to that path."""
        return [headers for _, where, headers in self.requests if where.startswith(path)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer takes 40 ms
    plane: Plane

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers and status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def problem(self, status: int, code: str, **headers: str) -> None:
        self.answer(status, json.dumps({"code": code, "detail": "no"}).encode(), **headers)

    def _faulty(self) -> bool:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.plane.requests.append((self.command, self.path, headers))
        for fault in list(self.plane.faults):
            if fault(self):
                self.plane.faults.remove(fault)
                return True
        return False

    def _known(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {self.plane.token}":
            return True
        self.problem(401, "request.unauthorized")
        return False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._faulty():
            return
        if self.path == wire.ENROL_PATH:
            self._enrol(body)
        elif self.path == wire.TOKEN_PATH:
            self._renew(body)
        elif self._known() and self._signed(self.plane.keys, "report", DEVICE_ID, body):
            self.plane.bodies.append(body)
            self.plane.reports.append(wire.Report.model_validate_json(body))
            self.answer(200, b"{}")

    def _signed(self, keys: list[str], what: str, device_id: str, body: bytes) -> bool:
        signature = self.headers.get(wire.SIGNATURE_HEADER)
        if any(has_signed(key, what, device_id, body, signature) for key in keys):
            return True
        self.problem(403, "device.bad_signature")
        return False

    def _enrol(self, body: bytes) -> None:
        enrolment = wire.Enrolment.model_validate_json(body)
        if not self._signed([enrolment.key or ""], "enrol", "", body):
            return
        if enrolment.token != self.plane.secret:
            self.problem(401, "device.bad_enrolment_token")
            return
        self.plane.enrolments.append(enrolment)
        self.plane.keys.append(enrolment.key or "")
        roots = [root.decode() for root in self.plane.roots.files]
        given = wire.Enrolled(
            device_id=DEVICE_ID, token=self.plane.token, roots=roots, pending=self.plane.pending
        )
        self.answer(201, given.model_dump_json().encode())

    def _renew(self, body: bytes) -> None:
        """The one token is worth nothing from now on; the next one has another number."""
        renewal = wire.Renewal.model_validate_json(body)
        if not self._signed(self.plane.keys, "token", DEVICE_ID, body):
            return
        self.plane.renewals.append(renewal)
        self.plane.token = f"device-token-{renewal.counter + 1}"
        self.answer(200, wire.Renewed(token=self.plane.token).model_dump_json().encode())

    def do_GET(self) -> None:
        if self._faulty() or not self._known():
            return
        if self.path == wire.DESIRED_PATH:
            self._desired()
        elif self.path.startswith(wire.METADATA_PATH):
            self.metadata()
        else:
            self.package(self.plane.files[self.path.rpartition("/")[2]])

    def _desired(self) -> None:
        for wanted in self.plane.models.values() if self.plane.signs else ():
            self.plane.release(wanted)
        etag = f'"{self.plane.generation}"'
        headers = {"ETag": etag}
        if self.plane.interval is not None:
            headers[wire.POLL_INTERVAL_HEADER.replace("-", "_")] = self.plane.interval
        if self.headers.get("If-None-Match") == etag:
            self.answer(304, **headers)
            return
        desired = wire.Desired(models=list(self.plane.models.values()), held=self.plane.held)
        self.answer(200, desired.model_dump_json().encode(), **headers)

    def metadata(self) -> None:
        """What is lacking of what is signed."""
        parts = urlsplit(self.path)
        held = {role: int(version) for role, version in parse_qsl(parts.query)}
        true = self.plane.repository(parts.path.rpartition("/")[2]).answer
        answer = (self.plane.forged or true)(held)
        if answer is None:
            self.answer(204)
        else:
            self.answer(200, answer, Content_Type=CONTENT_TYPE)

    def package(self, data: bytes, cut: int | None = None) -> None:
        """The bytes asked for; with `cut`, the connection ends after that many of them."""
        etag = f'"{self.path.rpartition("/")[2]}"'
        start, stop = 0, len(data)
        in_part = self.headers.get("Range") and self.headers.get("If-Range") == etag
        if in_part:
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            start, stop = int(first), int(last) + 1 if last else len(data)
        headers = {"ETag": etag, "Content_Length": str(stop - start)}
        if in_part:
            headers["Content_Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        self.answer(206 if in_part else 200, data[start:stop][:cut], **headers)
        self.close_connection |= cut is not None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """An agent that ends in the middle of a talk is no news."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serving(state: Plane, tls: ssl.SSLContext | None = None) -> Iterator[Plane]:
    """Serve the plane on loopback, until the block ends."""
    handler = type("PlaneHandler", (Handler,), {"plane": state})
    server = _Server(("127.0.0.1", 0), handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Bench:
    """Starts agents one after the other on the same state directory."""

    settings: dict[str, Any]
    pauses: list[float] = field(default_factory=list)

    @property
    def config(self) -> Config:
        return Config.model_validate(self.settings)

    @property
    def folder(self) -> Path:
        return self.config.state_dir / "models" / MODEL

    @property
    def environment(self) -> dict[str, str]:
        """The settings as the environment of a process."""
        given = {
            f"WEFT_AGENT_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
            for name, value in self.settings.items()
        }
        return {**os.environ, **given, "WEFT_AGENT_LOG_LEVEL": "debug"}

    def round(self) -> list[str]:
        """A new agent: recover, one round; returns the codes of what went wrong.

        Each model is left for later after its first error.
        """
        with self.running() as agent:
            return self.go_on(agent)

    def running(self) -> AbstractContextManager[Agent]:
        """An agent that waits for nothing really, and does all in this process."""
        return running(self.config, self.pauses.append, heavy=Inline())

    def go_on(self, agent: Agent) -> list[str]:
        errors = agent.recover()
        errors += agent.round(patience=0)[1]
        return [error.code for error in errors]

    def in_use(self) -> str | None:
        """The digest of what `current` leads to, read from the disk."""
        link = self.folder / "current"
        if not link.exists():
            return None
        with WeightsReader(link) as reader:
            return reader.digest().hex()

    def leftovers(self) -> set[str]:
        """Files in the model's directory that no finished update leaves."""
        expected = {"current", "journal.json", "slots", "a.safetensors", "b.safetensors", "trust"}
        expected |= {f"{role}.json" for role in ROLES}
        return {path.name for path in self.folder.rglob("*")} - expected
