"""A real, small proxy between the agent and the server: forwarding http, tunnelling https."""

from __future__ import annotations

import base64
import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from edge_agent.config import Config
from edge_agent.errors import ServerAway
from edge_agent.proxy import Proxy, proxy_for
from shared.errors import BadConfig, Unreachable
from tests.certificates import authority
from tests.edge_agent.plane import Plane, serving

SECRET = "s3cr%40t"
ENVIRONMENT = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@dataclass
class SmallProxy:
    """What a proxy was asked; `login` is demanded if it is set."""

    listener: socket.socket
    login: str | None = None
    asked: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connection, args=(client,), daemon=True).start()

    def _connection(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as stream, contextlib.suppress(OSError):
            while line := stream.readline().decode():
                headers = []
                while (header := stream.readline().decode()) not in ("\r\n", ""):
                    headers.append(header)
                self._request(client, stream, line, headers)

    def _request(self, client: socket.socket, stream: Any, line: str, headers: list[str]) -> None:
        method, target, _ = line.split()
        self.asked.append(f"{method} {target}")
        lengths = [int(h.split()[1]) for h in headers if h.lower().startswith("content-length")]
        body = stream.read(sum(lengths))
        logins = [h for h in headers if h.lower().startswith("proxy-authorization")]
        self.given += [login.split()[-1] for login in logins]
        if self.login and f"Basic {self.login}\r\n" not in "".join(logins):
            client.sendall(b"HTTP/1.1 407 Login, Please\r\nContent-Length: 0\r\n\r\n")
        elif method == "CONNECT":
            host, _, port = target.rpartition(":")
            with socket.create_connection((host, int(port))) as server:
                client.sendall(b"HTTP/1.1 200 Go on\r\n\r\n")
                exchange(client, server)
        else:
            self._forward(client, method, target, headers, body)

    def _forward(
        self, client: socket.socket, method: str, target: str, headers: list[str], body: bytes
    ) -> None:
        """Once only; the answer says so, or another request would come while this end closes."""
        parts = urlsplit(target)
        place = f"{parts.path}?{parts.query}" if parts.query else parts.path
        kept = [h for h in headers if not h.lower().startswith(("proxy-", "connection"))]
        head = f"{method} {place} HTTP/1.1\r\nConnection: close\r\n{''.join(kept)}\r\n"
        with socket.create_connection((parts.hostname or "", parts.port or 80)) as server:
            server.sendall(head.encode() + body)
            answer = b"".join(iter(partial(server.recv, 65536), b""))
        status, rest = answer.split(b"\r\n", 1)
        client.sendall(b"\r\n".join((status, b"Connection: close", rest)))
        client.shutdown(socket.SHUT_RDWR)


def exchange(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until both ends have ended."""

    def carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=carry, args=(other, one), daemon=True)
    back.start()
    carry(one, other)
    back.join()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallProxy]:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = SmallProxy(listener)
        thread = threading.Thread(target=made.serve)
        thread.start()
        yield made
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def tls_plane(plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    """Beside `plane`, whose root it has: the bench pins that one."""
    signer = authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(signer.file))
    with serving(Plane(roots=plane.roots), signer.server()) as over_tls:
        yield over_tls


def test_http_goes_by_the_proxy(bench: Any, plane: Any, shelf: Any, proxy: SmallProxy) -> None:
    bench.settings["proxy"] = f"http://{proxy.url}"
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    assert bench.round() == []
    assert bench.in_use() == shelf.digests[1]
    assert len(proxy.asked) == len(plane.requests)
    assert all(line.split()[1].startswith(plane.url) for line in proxy.asked)


def test_https_goes_through_a_tunnel(
    bench: Any, tls_plane: Any, shelf: Any, proxy: SmallProxy
) -> None:
    bench.settings |= {"server": tls_plane.url, "proxy": f"http://{proxy.url}"}
    tls_plane.offer(shelf, shelf.wanted(1, "full-1"))
    assert bench.round() == []
    assert bench.in_use() == shelf.digests[1]
    host = tls_plane.url.removeprefix("https://")
    assert set(proxy.asked) == {f"CONNECT {host}"}
    assert proxy.given == []  # nor does the server's token show


def test_https_without_a_proxy(bench: Any, tls_plane: Any, proxy: SmallProxy) -> None:
    bench.settings["server"] = tls_plane.url
    assert bench.round() == []
    assert proxy.asked == []


@pytest.mark.parametrize("fixture", ["plane", "tls_plane"])
def test_the_login_is_given_to_the_proxy_and_to_nobody_else(
    bench: Any,
    proxy: SmallProxy,
    fixture: str,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    server = request.getfixturevalue(fixture)
    proxy.login = base64.b64encode(b"lamp:s3cr@t").decode()
    bench.settings |= {"server": server.url, "proxy": f"http://lamp:{SECRET}@{proxy.url}"}
    assert bench.round() == []
    assert set(proxy.given) == {proxy.login}
    assert not any("proxy" in name for _, _, headers in server.requests for name in headers)
    assert SECRET not in caplog.text
    assert "s3cr@t" not in caplog.text


@pytest.mark.parametrize(("fixture", "error"), [("plane", Unreachable), ("tls_plane", ServerAway)])
def test_a_login_that_the_proxy_refuses_is_told_and_not_shown(
    bench: Any,
    proxy: SmallProxy,
    fixture: str,
    error: type[Exception],
    request: pytest.FixtureRequest,
) -> None:
    server = request.getfixturevalue(fixture)
    proxy.login = "bGFtcDpvdGhlcg=="
    bench.settings |= {"server": server.url, "proxy": f"http://lamp:{SECRET}@{proxy.url}"}
    with pytest.raises(error, match="407") as raised:
        bench.round()
    assert "s3cr" not in str(raised.value)
    assert server.requests == []


def test_the_environment_names_a_proxy(
    bench: Any, plane: Any, proxy: SmallProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)
    assert bench.round() == []
    assert len(proxy.asked) == len(plane.requests) > 0
    before = len(proxy.asked)
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    assert bench.round() == []
    monkeypatch.delenv("no_proxy")
    bench.settings["proxy"] = ""
    assert bench.round() == []
    assert len(proxy.asked) == before


def chosen(server: str, **settings: str) -> Proxy | None:
    return proxy_for(Config.model_validate({"server": server, "models": {"m": {}}, **settings}))


@pytest.mark.parametrize(
    ("server", "environment", "url"),
    [
        ("https://weft.example", {"https_proxy": "http://gate:3128"}, "http://gate:3128"),
        ("https://weft.example", {"http_proxy": "http://gate:3128"}, None),
        ("https://weft.example", {"all_proxy": "gate"}, "http://gate:80"),
        ("https://weft.example", {"HTTPS_PROXY": "http://[::1]:9"}, "http://[::1]:9"),
        (
            "https://weft.example",
            {"https_proxy": "http://gate:3128", "no_proxy": ".example"},
            None,
        ),
        ("https://weft.example", {}, None),
    ],
)
def test_the_environment_means_what_it_means_elsewhere(
    proxy: SmallProxy,
    monkeypatch: pytest.MonkeyPatch,
    server: str,
    environment: dict[str, str],
    url: str | None,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = chosen(server)
    assert (found and found.url) == url


@pytest.mark.parametrize(
    "told",
    [
        "https://gate:3128",
        "socks5://gate:1080",
        "http://",
        "http://gate:port",
        "http://u:s3cr@gate:0x",
    ],
)
def test_what_is_no_http_proxy_is_refused_without_its_login(proxy: SmallProxy, told: str) -> None:
    with pytest.raises(BadConfig, match="proxy: must be") as raised:
        chosen("https://weft.example", proxy=told)
    assert "s3cr" not in str(raised.value)
    assert "s3cr" not in repr(chosen("https://w.example", proxy="http://u:s3cr@gate"))
