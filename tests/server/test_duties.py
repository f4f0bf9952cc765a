"""Of several processes one has a duty at a time, and another takes it over when that one dies."""

from __future__ import annotations

import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy import select as query

from server.db import open_engine, reading
from server.duties import Duty, hold, release
from server.tables import Lease

START = datetime(2026, 3, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)

#: Says "looked" at every turn of its loop, and "work" where it has the duty.
PROCESS = """
import sys, threading
from server import duties
from server.db import open_engine

def look(*arguments, **named):
    held = hold(*arguments, **named)
    print("held" if held else "refused", flush=True)
    return held

hold, duties.hold = duties.hold, look
work = lambda: print("work", flush=True)
duty = duties.Duty(open_engine(sys.argv[1]), "counting", 0.02, work, lease_seconds=2)
duty.start()
sys.stdin.read()
duty.stop()
"""


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


def test_a_lease_is_one_holders_until_it_runs_out(engine: Engine) -> None:
    assert hold(engine, "duty", "a", 15, at=START)
    assert not hold(engine, "duty", "b", 15, at=START + 14 * SECOND)
    assert hold(engine, "duty", "a", 15, at=START + 14 * SECOND)  # renewed
    assert not hold(engine, "duty", "b", 15, at=START + 28 * SECOND)
    assert hold(engine, "duty", "b", 15, at=START + 29 * SECOND)
    assert not hold(engine, "duty", "a", 15, at=START + 30 * SECOND)
    assert hold(engine, "another duty", "a", 15, at=START)


def test_a_lease_given_back_is_free_at_once(engine: Engine) -> None:
    assert hold(engine, "duty", "a", at=START)
    release(engine, "duty", "b")  # not its own
    assert not hold(engine, "duty", "b", at=START)
    release(engine, "duty", "a")
    assert hold(engine, "duty", "b", at=START)


@pytest.mark.parametrize("run_out", [False, True])
def test_of_many_that_ask_at_once_one_gets_it(engine: Engine, run_out: bool) -> None:
    if run_out:
        assert hold(engine, "duty", "dead", 15, at=START - 60 * SECOND)
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda name: hold(engine, "duty", name, at=START), "abcdef"))
    assert got.count(True) == 1
    with reading(engine) as session:
        assert session.scalar(query(Lease.holder)) == "abcdef"[got.index(True)]


def test_a_duty_is_done_when_rung_and_survives_its_errors(engine: Engine, caplog: Any) -> None:
    done = threading.Semaphore(0)

    def work() -> None:
        done.release()
        raise ZeroDivisionError

    duty = Duty(engine, "duty", 3600, work)
    duty.start()
    for _ in range(3):
        assert done.acquire(timeout=30)
        duty.ring()
    duty.stop()
    assert "duty failed; it is tried again" in caplog.text
    with reading(engine) as session:
        assert session.scalar(query(Lease)) is None  # given back


@pytest.fixture
def process(database_url: str) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-u", "-c", PROCESS, database_url]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started.append(subprocess.Popen(command, **pipes, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until(process: subprocess.Popen[str], word: str, times: int = 1) -> list[str]:
    """What it says until it has said `word` so often."""
    said: list[str] = []
    while said.count(word) < times:
        line = process.stdout.readline().strip()
        assert line, said
        said.append(line)
    return said


def test_one_process_works_and_the_other_when_it_is_killed(process: Any) -> None:
    first = process()
    until(first, "work")
    second = process()
    until(first, "held", 3)
    assert "work" not in until(second, "refused", 5)
    first.send_signal(signal.SIGKILL)
    first.wait()
    until(second, "work")


def test_a_process_that_ends_in_order_leaves_the_duty_at_once(process: Any) -> None:
    first = process()
    until(first, "work")
    second = process()
    until(second, "refused")
    first.communicate(timeout=30)  # closes its stdin
    assert first.returncode == 0
    assert select.select([second.stdout], [], [], 30)[0]
    until(second, "work")
