"""`make check` asks about known weaknesses of what is pinned; nobody who knows stops nothing."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def script(checkout: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", checkout / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def source() -> Iterator[Callable[[bytes], str]]:
    """Gives the address of a source that answers so."""
    servers: list[HTTPServer] = []

    def answering(body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=[0.01], daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/pypi/jinja2/2.4.1/json"

    yield answering
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("body", [b"a portal", b"[]", b"{}", b'{"vulnerabilities": []}'])
def test_who_knows_of_no_weakness_is_no_source(
    script: ModuleType, source: Callable[[bytes], str], body: bytes
) -> None:
    assert not script.lists_weaknesses(source(body))


def test_a_source(script: ModuleType, source: Callable[[bytes], str]) -> None:
    known = {"vulnerabilities": [{"id": "PYSEC-2019-217"}]}
    assert script.lists_weaknesses(source(json.dumps(known).encode()))


def test_nobody_there(script: ModuleType) -> None:
    assert not script.lists_weaknesses("http://127.0.0.1:9/")


def says(stdout: str, stderr: str, status: int) -> list[str]:
    """A command that ends so, whatever it is asked."""
    code = f"import sys; print({stdout!r}); print({stderr!r}, file=sys.stderr); sys.exit({status})"
    return [sys.executable, "-c", code]


def test_a_known_weakness_fails_the_check(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.audit(*says("jinja2 2.4.1 PYSEC-2019-217", "Found 1", 1)) == 1
    assert "PYSEC-2019-217" in capsys.readouterr().out


def test_no_known_weakness(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.audit(*says("", "No known vulnerabilities found", 0)) == 0
    assert "No known" in capsys.readouterr().out


def test_a_source_that_goes_away_fails_nothing(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.audit(*says("", "ERROR: cannot connect", 1)) == 0
    assert "skipped: no advisory source: ERROR: cannot connect" in capsys.readouterr().out


def test_pip_audit_takes_what_it_is_asked(checkout: Path) -> None:
    from pip_audit._cli import _parser

    options = ["--disable-pip", "--no-deps", "--progress-spinner=off"]
    asked = [*options, "-r", str(checkout / "constraints.txt")]
    assert _parser().parse_args(asked).disable_pip
