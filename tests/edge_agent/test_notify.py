"""What the service manager hears: the protocol, and a real agent that says it is alive."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.notify import BEATS_IN_TIME, Notifier
from edge_agent.stopping import Stop

PING = "WATCHDOG=1"


class Manager:
    """The receiving end of sd_notify."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(60)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def hear(self) -> str:
        """The next message."""
        return self._socket.recv(4096).decode()

    def hear_until(self, message: str) -> list[str]:
        """All messages up to that one."""
        said = [self.hear()]
        while said[-1] != message:
            said.append(self.hear())
        return said

    def all(self) -> list[str]:
        """What has been said and not heard yet."""
        said = []
        self._socket.setblocking(False)
        try:
            while True:
                said.append(self.hear())
        except BlockingIOError:
            self._socket.settimeout(60)
        return said

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    path = str(tmp_path / "notify")
    found = Manager(path if request.param == "path" else f"@weft-{os.getpid()}-{tmp_path.name}")
    yield found
    found.close()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def notifier(manager: Manager, clock: Clock, **more: str) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": manager.address, **more}, clock)


def test_each_message_is_a_datagram(manager: Manager) -> None:
    said = notifier(manager, Clock())
    said.ready()
    said.status("digits: version 2\nand more")
    said.stopping()
    assert manager.all() == ["READY=1", "STATUS=digits: version 2 and more", "STOPPING=1"]


def test_a_status_is_said_where_it_is_new(manager: Manager) -> None:
    said = notifier(manager, Clock())
    for text in ("one", "one", "two", "one"):
        said.status(text)
    assert manager.all() == ["STATUS=one", "STATUS=two", "STATUS=one"]


def test_signs_of_life_limit_themselves(manager: Manager) -> None:
    clock = Clock()
    said = notifier(manager, clock, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
    for _ in range(1000):
        said.beat()
        clock.now += 0.03
    assert manager.all() == [PING] * BEATS_IN_TIME


@pytest.mark.parametrize(
    "watchdog", [{}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}]
)
def test_without_a_watchdog_of_its_own_it_gives_no_signs(
    manager: Manager, watchdog: dict[str, str]
) -> None:
    notifier(manager, Clock(), **watchdog).beat()
    assert manager.all() == []


def test_nobody_need_listen(tmp_path: Path) -> None:
    for address in ("", str(tmp_path / "nobody"), "@nobody-at-all"):
        said = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1"}, Clock())
        said.ready()
        said.beat()


def test_what_it_was_told_is_not_handed_on(manager: Manager) -> None:
    given = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "A": "b"}
    Notifier(given, Clock())
    assert given == {"A": "b"}


class Stopped(BaseException):
    """What ends these tests' agents."""


def test_a_stop_is_raised_at_the_next_sign_of_life() -> None:
    stop = Stop()
    said = Notifier({}, Clock(), stop)
    said.beat()
    stop.ask(Stopped)
    for alive in (said.beat, lambda: said.wait(0)):
        with pytest.raises(Stopped):
            alive()


def test_a_stop_strikes_at_once_only_where_it_may() -> None:
    stop = Stop()
    with pytest.raises(Stopped), stop:
        stop.ask(Stopped)
    with pytest.raises(Stopped), stop:
        pytest.fail("it was asked for before")
    stop.ask(Stopped)


# The real process, which waits for the server, for a slow one, and for its health command. What it
# waits for is given only when it was heard to live: no time is measured.

#: Seconds of the watchdog; a wait tells at most each half of a second.
WATCHDOG = 0.3
SIGNS = 3


def pings(manager: Manager) -> None:
    manager.all()
    for _ in range(SIGNS):
        manager.hear_until(PING)


@pytest.fixture
def environment(bench: Any, plane: Any, tmp_path: Path) -> dict[str, str]:
    variables: dict[str, str] = bench.environment
    return {**variables, "WATCHDOG_USEC": str(int(WATCHDOG * 1e6))}


def started(environment: dict[str, str], manager: Manager) -> subprocess.Popen[str]:
    # Its process id is known only when it runs; systemd sets WATCHDOG_PID after the fork.
    command = "import os, sys; os.environ['WATCHDOG_PID'] = str(os.getpid()); "
    command += "from edge_agent.cli import main; sys.exit(main(['run']))"
    return subprocess.Popen(
        [sys.executable, "-c", command],
        env={**environment, "NOTIFY_SOCKET": manager.address},
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], manager: Manager) -> str:
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    assert manager.hear_until("STOPPING=1")
    assert manager.all() == []
    return said


def test_it_is_ready_without_a_server_and_lives_while_idle(
    bench: Any, environment: dict[str, str], manager: Manager
) -> None:
    environment["WEFT_AGENT_SERVER"] = "http://127.0.0.1:9"  # discard: nothing listens
    with started(environment, manager) as process:
        manager.hear_until("READY=1")
        pings(manager)
        ended(process, manager)


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_it_lives_during_a_slow_download_and_a_long_check(
    bench: Any, plane: Any, shelf: Any, manager: Manager, tmp_path: Path
) -> None:
    begun, done = tmp_path / "begun", tmp_path / "done"
    os.mkfifo(begun)
    os.mkfifo(done)
    # The check says that it has begun, and waits: opening a FIFO waits for its other end.
    check = ["/bin/sh", "-c", f"echo > {begun}; cat {done}"]
    bench.settings["models"]["digits"]["health_command"] = check
    plane.offer(shelf, shelf.wanted(1, "full-1"))

    def drip(handler: Any) -> bool:
        if "/packages/" not in handler.path:
            return False
        data = handler.plane.files[handler.path.rpartition("/")[2]]
        handler.answer(200, data[:500], Content_Length=str(len(data)))
        handler.wfile.flush()
        pings(manager)
        handler.wfile.write(data[500:])
        return True

    reported = threading.Event()

    def note(handler: Any) -> bool:
        if plane.reports:
            reported.set()
        return False

    plane.interval = "0.05"
    plane.faults = [drip, note]
    variables = {**bench.environment, "WATCHDOG_USEC": str(int(WATCHDOG * 1e6))}
    with started(variables, manager) as process:
        assert begun.read_text() == "\n"
        assert plane.faults == [note]
        pings(manager)
        done.write_text("fine")
        assert reported.wait(60)
        ended(process, manager)
    assert [report.health for report in plane.reports] == ["passed"]
