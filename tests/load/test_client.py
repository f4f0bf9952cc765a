"""The load tool's devices: what they send, what they count, and whom they refuse to load."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.load.client import BadPlan, Plan, drive
from shared.wire import DESIRED_PATH
from tests.load.conftest import FLEET, IDLE

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.fixture
def slow_server() -> Iterator[int]:
    """Answers one connection's requests at once, but stands still for a while after the tenth."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                number = 0
                while connection.recv(65536):
                    number += 1
                    if number == 10:
                        time.sleep(0.3)
                    connection.sendall(ANSWER)

        thread = threading.Thread(target=answer)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def test_a_stall_counts_for_all_that_were_due_meanwhile(slow_server):
    plan = Plan(slow_server, 0.6, "/", rate=200, connections=1, warm_up=0)
    seen = drive(plan)
    assert seen.lost == 0
    assert seen.answers > 60
    assert seen.worst >= 0.3
    # 60 of 120 were due in the 0.3 s; a tool that waits for answers would have counted one.
    assert seen.p50 > 0.01


def test_the_rate_is_kept_whatever_the_answers_do(loaded):
    plan = Plan(loaded.port, 0.5, "/healthz", rate=200, connections=4, warm_up=0.1)
    seen = drive(plan)
    assert 60 <= seen.answers <= 140
    assert seen.statuses == {"200": seen.answers}


def test_a_closed_loop_asks_again_when_answered(loaded):
    plan = Plan(loaded.port, 0.3, DESIRED_PATH, devices=FLEET + IDLE, etag=loaded.etag)
    seen = drive(plan)
    assert seen.answers > 100
    assert seen.statuses == {"304": seen.answers}
    assert seen.per_second == pytest.approx(seen.answers / 0.3)


def test_devices_without_an_etag_are_told_all(loaded):
    plan = Plan(loaded.port, 0.2, DESIRED_PATH, connections=2, warm_up=0)
    known = drive(replace(plan, devices=IDLE, first_device=FLEET))
    assert known.statuses == {"200": known.answers}
    strangers = drive(replace(plan, devices=5, first_device=FLEET + IDLE))
    assert strangers.statuses == {"401": strangers.answers}


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "192.0.2.1"},
        {"host": "0.0.0.0"},
        {"seconds": 0},
        {"seconds": 601},
        {"connections": 501},
        {"rate": 1e9},
        {"rate": -1},
    ],
)
def test_what_has_no_bound_or_is_another_machine_is_refused(changes):
    given = {"port": 1, "seconds": 1.0, "path": "/"} | changes
    with pytest.raises(BadPlan):
        drive(Plan(**given))


def test_a_server_that_is_away_is_told():
    with pytest.raises(OSError, match="refused"):
        drive(Plan(1, 0.1, "/"))
