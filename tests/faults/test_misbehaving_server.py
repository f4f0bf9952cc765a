"""The real agent and a server that misbehaves: it succeeds, or says clearly why not; it never
takes more than is bounded, and once the server behaves, the update is made.
"""

from __future__ import annotations

import itertools
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_agent import connection
from shared.errors import WeftError
from tests.certificates import DAY, authority
from tests.edge_agent.plane import MODEL, Bench, Plane, Shelf, make_shelf
from tests.faults.misbehaving import Site, misbehaving
from tests.faults.server_faults import ENROL, MESSAGE_FAULTS, PACKAGE_FAULTS

FAULTS = {fault.name: fault for fault in (*PACKAGE_FAULTS, *MESSAGE_FAULTS)}
TLS_FAULTS = {
    "certificate expired": "server.untrusted",
    "certificate of an unknown authority": "server.untrusted",
    "certificate for another host": "server.untrusted",
    "plain HTTP on the port of TLS": "server.unreachable",
    "garbage in the handshake": "server.unreachable",
    "silence in the handshake": "server.unreachable",
    "reset in the handshake": "server.unreachable",
}
#: Rounds while a fault lasts, each by an agent of its own.
ROUNDS = 3
#: A round polls, asks for one package or two, reports, tells what it is, enrols.
MOST_REQUESTS = ROUNDS * 6
#: Silence that ends a connection, where a fault is silent.
PATIENCE_SECONDS = 0.2


@dataclass
class Field:
    """An agent on version 1, a server, and what went wrong between them."""

    bench: Bench
    site: Site
    shelf: Shelf
    codes: set[str] = field(default_factory=set)
    pauses: list[float] = field(default_factory=list)

    def round(self) -> None:
        """Let a new agent do what it can, until its first error."""
        with self.bench.running() as agent:
            try:
                errors = agent.recover() + agent.round(patience=0)[1]
            except WeftError as error:
                errors = [error]
            self.codes |= {error.code for error in errors}
            self.pauses.append(agent.updates[MODEL].not_before - agent.clock.now())
        assert self.bench.in_use() in (self.shelf.digests[1], self.shelf.digests[2])

    def settle(self) -> None:
        """Rounds until one ends well."""
        for _ in range(ROUNDS):
            self.codes.clear()
            self.round()
            if not self.codes:
                return
        raise AssertionError(self.codes)

    def begin(self) -> None:
        """Enrol with version 1, and be offered version 2."""
        self.settle()
        self.pauses.clear()
        self.offer()

    def offer(self) -> None:
        self.site.plane.offer(self.shelf, self.shelf.wanted(2, "full-2"))

    def ends_well(self) -> None:
        """The server behaves again: the update is made, told, and leaves nothing behind."""
        self.site.behave()
        self.settle()
        assert self.bench.in_use() == self.shelf.digests[2]
        assert self.bench.leftovers() == set()
        told = {(report.version, report.result) for report in self.site.plane.reports}
        assert (2, "committed") in told
        assert (2, "failed_no_change") not in told


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return make_shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture
def bench(shelf: Shelf, tmp_path: Path) -> Bench:
    return Bench(
        {
            "name": "lamp-3",
            "state_dir": str(tmp_path / "state"),
            "enrolment_token": Plane().enrolment_token,
            "timeout_seconds": 20,
            "models": {MODEL: {"initial": str(shelf.weights[1])}},
        }
    )


@pytest.fixture
def out_there(bench: Bench, shelf: Shelf) -> Iterator[Field]:
    with misbehaving(Plane()) as site:
        bench.settings["server"] = site.plane.url
        yield Field(bench, site, shelf)


def ticking(seconds: float) -> Callable[[], float]:
    """A clock by which so much passes between any two looks."""
    ticks = itertools.count()
    return lambda: next(ticks) * seconds


def test_there_are_many_faults_each_with_a_name_of_its_own() -> None:
    assert len(FAULTS) == len(PACKAGE_FAULTS) + len(MESSAGE_FAULTS)
    assert len(FAULTS) + len(TLS_FAULTS) >= 25


@pytest.mark.parametrize("name", FAULTS)
def test_a_server_that_misbehaves(
    out_there: Field, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault, site = FAULTS[name], out_there.site
    if fault.where == ENROL:
        out_there.offer()
    else:
        out_there.begin()
    if fault.silent:
        out_there.bench.settings["timeout_seconds"] = PATIENCE_SECONDS
    with monkeypatch.context() as patch:
        if fault.slow:
            patch.setattr(connection, "monotonic", ticking(10))
        site.misbehave(fault.act, fault.where, fault.times)
        for _ in range(ROUNDS):
            out_there.round()
    assert out_there.codes == fault.codes
    assert len(site.plane.requests) <= MOST_REQUESTS
    assert site.sent <= fault.most_bytes
    assert not fault.pause or fault.pause[0] <= max(out_there.pauses) <= fault.pause[1]
    if not fault.codes:
        assert out_there.bench.in_use() == out_there.shelf.digests[2]
    out_there.ends_well()


# TLS.


class Handshakes:
    """Ways in which a server may begin a connection that should be TLS."""

    def __init__(self, folder: Path, site: Site) -> None:
        (other := folder / "other").mkdir()
        self.authority, self._site = authority(folder), site
        self.by_name: dict[str, Callable[[socket.socket], socket.socket]] = {
            "good": _side(self.authority.server()),
            "certificate expired": _side(self.authority.server(ends=-DAY)),
            "certificate of an unknown authority": _side(authority(other).server()),
            "certificate for another host": _side(self.authority.server("127.0.0.2")),
            "plain HTTP on the port of TLS": lambda plain: plain,
            "garbage in the handshake": self._garbage,
            "silence in the handshake": self._silence,
            "reset in the handshake": self._reset,
        }

    def _garbage(self, plain: socket.socket) -> socket.socket:
        plain.sendall(b"\x16\x03\x01" + bytes(range(200)))
        return plain

    def _silence(self, plain: socket.socket) -> socket.socket:
        self._site.over.wait()
        raise ConnectionError

    def _reset(self, plain: socket.socket) -> socket.socket:
        plain.recv(10)
        raise ConnectionError  # closed with bytes unread: the kernel sends RST


def _side(context: ssl.SSLContext) -> Callable[[socket.socket], socket.socket]:
    return lambda plain: context.wrap_socket(plain, server_side=True)


@pytest.mark.parametrize("name", TLS_FAULTS)
def test_a_server_whose_tls_is_wrong(
    bench: Bench, shelf: Shelf, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with misbehaving(Plane(), "https") as site:
        handshakes = Handshakes(tmp_path, site)
        monkeypatch.setenv("SSL_CERT_FILE", str(handshakes.authority.file))
        site.wrap = handshakes.by_name["good"]
        bench.settings["server"] = site.plane.url
        out_there = Field(bench, site, shelf)
        out_there.begin()
        before = len(site.plane.requests)
        site.wrap = handshakes.by_name[name]
        site.over.clear()
        bench.settings["timeout_seconds"] = PATIENCE_SECONDS if "silence" in name else 20
        for _ in range(ROUNDS):
            out_there.round()
        assert out_there.codes == {TLS_FAULTS[name]}
        assert len(site.plane.requests) == before
        site.wrap = handshakes.by_name["good"]
        out_there.ends_well()
