"""Kind `file`: the program is told by a signal, a command or an HTTP request, in bounded time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from edge_agent.config import ModelConfig
from edge_agent.errors import HealthError
from edge_agent.runtimes import Weights, open_runtime

NEW = Weights(Path("/slots/b.safetensors"), "ab" * 32, 2)


def runtime(**settings: Any) -> Any:
    config = ModelConfig.model_validate({"runtime": {"kind": "file", **settings}})
    return open_runtime("digits", config, lambda: None)


def refused(**settings: Any) -> str:
    with pytest.raises(HealthError) as raised:
        runtime(**settings).swap(NEW)
    assert raised.value.code == "health.not_notified"
    return raised.value.message


def test_without_a_check_it_is_unverified() -> None:
    told = runtime()
    told.prepare(NEW)
    told.swap(NEW)
    assert told.verify(NEW, None).health == "unverified"
    told.confirm(NEW)
    assert told.revert(None).health == "unverified"


def test_the_health_command_is_the_judge() -> None:
    config = ModelConfig(health_command=[sys.executable, "-c", "pass"])
    assert open_runtime("digits", config, lambda: None).verify(NEW, None).health == "passed"


def test_the_process_in_the_pidfile_is_signalled(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    pidfile.write_text(f"{os.getpid()}\n")
    caught: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: caught.append(number))
    try:
        told = runtime(notify_pidfile=str(pidfile), notify_signal="USR1")
        told.swap(NEW)
        told.revert(None)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert caught == [signal.SIGUSR1] * 2


def test_a_program_that_is_not_running_need_not_be_told(tmp_path: Path) -> None:
    ended = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", "pass"])
    os.waitpid(ended, 0)
    (tmp_path / "pid").write_text(str(ended))
    for name in ("pid", "none"):
        runtime(notify_pidfile=str(tmp_path / name)).swap(NEW)


@pytest.mark.parametrize("content", ["", "0", "-1", "1", "lamp", "9" * 40])
def test_a_pidfile_never_leads_to_other_processes(content: str, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    pidfile.write_text(content)
    assert str(pidfile) in refused(notify_pidfile=str(pidfile))


def test_a_command_tells_it_and_knows_what(tmp_path: Path) -> None:
    note = tmp_path / "note"
    code = f"import os; open({str(note)!r}, 'w').write(os.environ['WEFT_WEIGHTS'])"
    runtime(notify_command=[sys.executable, "-c", code]).swap(NEW)
    assert note.read_text() == str(NEW.path)


def test_a_command_that_fails_is_a_failure_and_one_that_hangs_too() -> None:
    assert "ended with 4" in refused(notify_command=[sys.executable, "-c", "raise SystemExit(4)"])
    hangs = [sys.executable, "-c", "import signal; signal.pause()"]
    assert "0.2 s" in refused(notify_command=hangs, notify_timeout_seconds=0.2)


class Program(BaseHTTPRequestHandler):
    status = 204
    heard: ClassVar[list[tuple[str, Any]]]

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.heard.append((self.path, body))
        self.send_response(self.status)
        self.end_headers()


@pytest.fixture
def program() -> Iterator[tuple[type[Program], str]]:
    handler = type("Heard", (Program,), {"heard": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield handler, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_request_tells_it(program: tuple[type[Program], str]) -> None:
    handler, url = program
    runtime(notify_url=f"{url}/reload?all").swap(NEW)
    told = {"model": "digits", "weights": str(NEW.path), "digest": NEW.digest}
    assert handler.heard == [("/reload?all", told)]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_program_that_refuses_is_a_failure(
    status: int, program: tuple[type[Program], str]
) -> None:
    handler, url = program
    handler.status = status
    assert str(status) in refused(notify_url=url)
    assert "answers" in runtime(notify_url=url).revert(None).message


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        runtime(notify_url=f"http://127.0.0.1:{taken.getsockname()[1]}").swap(NEW)


@pytest.mark.parametrize("drip", [b"", b"HTTP/1.1 200 OK\r\nX: "])
def test_a_program_that_drips_its_answer_is_given_up(drip: bytes) -> None:
    """The whole exchange has the time-out, not each byte of it."""
    over = threading.Event()

    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(drip)
            with contextlib.suppress(OSError):
                while drip and not over.wait(0.02):
                    connection.sendall(b"x")
            over.wait(20)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=[server])
        thread.start()
        refused(
            notify_url=f"http://127.0.0.1:{server.getsockname()[1]}", notify_timeout_seconds=0.3
        )
        over.set()
        thread.join()


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "smoke"},
        {"kind": "file", "notify_signal": "LAMP"},
        {"kind": "file", "notify_url": "http://weft.example/"},
        {"kind": "file", "notify_url": "https://127.0.0.1/"},
        {"kind": "file", "notify_url": "http://127.0.0.1/", "notify_command": ["true"]},
        {"kind": "file", "socket": "/run/x"},
        {"kind": "program"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelConfig.model_validate({"runtime": settings})


def test_a_program_opens_the_file_unless_it_is_said_otherwise() -> None:
    config = ModelConfig.model_validate({"runtime": {"notify_pidfile": "/run/digits/pid"}})
    assert config.runtime.kind == "file"
    assert ModelConfig().runtime.kind == "file"


def test_who_holds_a_copy() -> None:
    configured = [
        ({"kind": "file"}, False),
        ({"kind": "file", "holds_copy": True}, True),
        ({"kind": "program", "socket": "/run/x"}, True),
    ]
    for settings, expected in configured:
        config = ModelConfig.model_validate({"runtime": settings})
        assert open_runtime("digits", config, lambda: None).holds_copy is expected
