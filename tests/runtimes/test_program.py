"""Agent and program over the socket: who may ask, what is bounded, and either side killed."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config import ModelConfig
from edge_agent.errors import HealthError, RuntimeAway, RuntimeRefused
from edge_agent.runtimes import Runtime, Weights, open_runtime
from edge_agent.runtimes.holder import Holder
from edge_agent.runtimes.serving import _bound, _Server, serve
from edge_agent.runtimes.talk import MAX_LINE_BYTES, Answer
from shared.errors import BadConfig
from tests.runtimes.contract import Place
from tests.runtimes.number import Number, digest, tensors

NEW = Weights(Path("/slots/b.safetensors"), "ab" * 32, 2)


@pytest.fixture
def place(place: Place) -> Place:
    place.put("a", tensors(1))
    place.put("b", tensors(2))
    place.use("a")
    place.note("idle")
    return place


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weft.sock"


def agent(path: Path, seconds: float = 20, **more: Any) -> Runtime:
    """The agent's end."""
    settings = {"kind": "program", "socket": str(path), "timeout_seconds": seconds}
    given = {"runtime": settings, "health_timeout_seconds": seconds} | more
    return open_runtime("digits", ModelConfig.model_validate(given), lambda: None)


def holder(place: Place, **settings: Any) -> Holder[Number]:
    number = Number()
    return Holder(number, number, place.directory, **settings)


# Who may ask.


def test_the_socket_is_for_owner_and_group_only(place: Place, path: Path) -> None:
    before = os.umask(0)
    try:
        with serve({"digits": holder(place)}, path, group=os.getegid()):
            found = path.stat()
            assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, os.getegid())
    finally:
        os.umask(before)
    assert not path.exists()


def test_a_user_who_is_not_named_is_not_answered(place: Place, path: Path) -> None:
    """Whatever the permissions of the socket."""
    with _bound(path, _Server({"digits": holder(place)}, frozenset()), None) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with pytest.raises(RuntimeAway):
                agent(path).prepare(place.held["b"])
        finally:
            server.shutdown()
            thread.join()


def test_a_user_that_does_not_exist_is_named(place: Place, path: Path) -> None:
    with (
        pytest.raises(BadConfig, match=r"^there is no user lamp-agent "),
        serve({"digits": holder(place)}, path, users=["lamp-agent"]),
    ):
        raise AssertionError


def test_the_socket_of_a_killed_program_is_taken_over(place: Place, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    with serve({"digits": holder(place)}, path):
        agent(path).prepare(place.held["b"])


def test_the_socket_of_a_running_program_is_not(place: Place, path: Path) -> None:
    with serve({"digits": holder(place)}, path):
        with pytest.raises(BadConfig, match="running"), serve({"digits": holder(place)}, path):
            raise AssertionError
        agent(path).prepare(place.held["b"])


def test_a_file_in_its_place_is_kept(place: Place, path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(BadConfig), serve({"digits": holder(place)}, path):
        raise AssertionError
    assert path.read_text() == "precious"


# What is asked wrongly.


def said(path: Path, line: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(line)
        return connection.makefile("rb").readline()


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"lamp\n",
        b"{}\n",
        b'{"do":"swap","model":"digits","seconds":1}\n',
        b'{"do":"prepare","model":"other","seconds":1}\n',
        b'{"do":"prepare","model":"digits","seconds":1,"weft":2}\n',
        b'{"do":"burn","model":"digits","seconds":1}\n',
        b"\xff\xfe\n",
        b"[" * (MAX_LINE_BYTES - 1) + b"\n",
    ],
)
def test_a_question_that_makes_no_sense_is_refused(place: Place, path: Path, line: bytes) -> None:
    with serve({"digits": holder(place)}, path):
        answer = Answer.model_validate_json(said(path, line))
        assert answer.fault is not None
        assert answer.fault.code == "runtime.refused"
        agent(path).prepare(place.held["b"])  # it goes on


def test_an_endless_question_is_not_read_to_the_end(place: Place, path: Path) -> None:
    with serve({"digits": holder(place)}, path):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                endless(connection)
        agent(path).prepare(place.held["b"])


def test_what_the_program_refuses_arrives_with_its_words(place: Place, path: Path) -> None:
    bad = Weights(place.directory / "none", "ab" * 32, 2)
    with serve({"digits": holder(place)}, path), pytest.raises(RuntimeRefused) as raised:
        agent(path).prepare(bad)
    assert "no such file [weights.not_found]" in raised.value.message


# Programs that do not answer.


def test_nobody_listens(path: Path) -> None:
    away = agent(path, 0.3)
    with pytest.raises(RuntimeAway, match="nobody listens"):
        away.prepare(NEW)
    with pytest.raises(RuntimeAway, match="nobody listens"):
        away.swap(NEW)
    with pytest.raises(RuntimeAway, match="nobody listens"):
        away.verify(NEW, None)
    away.confirm(NEW)  # it finds them in use when it starts
    assert away.revert(None).digest is None


@pytest.fixture
def broken(path: Path) -> Iterator[Callable[[Callable[[socket.socket], None]], None]]:
    """Starts a program that answers every question in its own way."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    threads: list[threading.Thread] = []

    def serve_all(answer: Callable[[socket.socket], None]) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                try:
                    answer(connection)
                except OSError:  # the agent has had enough
                    continue

    def start(answer: Callable[[socket.socket], None]) -> None:
        threads.append(threading.Thread(target=serve_all, args=[answer]))
        threads[-1].start()

    yield start
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    for thread in threads:
        thread.join(20)


def endless(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x" * 4096)


def drip(connection: socket.socket) -> None:
    connection.settimeout(0.05)
    while True:
        connection.sendall(b"x")
        try:
            if not connection.recv(MAX_LINE_BYTES):
                return
        except TimeoutError:
            continue


def silent(connection: socket.socket) -> None:
    while connection.recv(MAX_LINE_BYTES):
        pass


def hang_up(connection: socket.socket) -> None:
    connection.recv(MAX_LINE_BYTES)


@pytest.mark.parametrize("answer", [endless, drip, silent, hang_up])
def test_a_program_that_gives_no_answer_is_away(
    answer: Callable[[socket.socket], None], path: Path, broken: Any
) -> None:
    broken(answer)
    for call in (agent(path, 0.3).prepare, agent(path, 0.3).confirm, agent(path, 0.3).revert):
        with pytest.raises(RuntimeAway):
            call(NEW)
    with pytest.raises(HealthError) as raised:
        agent(path, 0.3).verify(NEW, None)
    assert raised.value.code == "health.timed_out"


@pytest.mark.parametrize("answer", [b"lamp\n", b"\xff\n", b"[]\n", b'{"verdict":{}}\n'])
def test_an_answer_that_makes_no_sense_is_no_acceptance(
    answer: bytes, path: Path, broken: Any
) -> None:
    broken(lambda connection: (connection.recv(MAX_LINE_BYTES), connection.sendall(answer)))
    with pytest.raises(RuntimeRefused):
        agent(path).verify(NEW, None)


def test_an_answer_without_the_right_digest_is_no_acceptance(path: Path, broken: Any) -> None:
    line = Answer.model_validate({"verdict": {"health": "passed", "digest": "00" * 32}}).line()
    broken(lambda connection: (connection.recv(MAX_LINE_BYTES), connection.sendall(line)))
    with pytest.raises(HealthError) as raised:
        agent(path).verify(NEW, None)
    assert raised.value.code == "health.wrong_weights"


def test_signs_of_life_are_given_while_the_program_thinks(path: Path, broken: Any) -> None:
    broken(silent)
    beats: list[None] = []
    settings = {"kind": "program", "socket": str(path), "timeout_seconds": 1.2}
    config = ModelConfig.model_validate({"runtime": settings})
    with pytest.raises(RuntimeAway):
        open_runtime("digits", config, lambda: beats.append(None)).prepare(NEW)
    assert len(beats) >= 3


# Judging.


def test_a_check_that_hangs_ends_in_going_back(place: Place, path: Path) -> None:
    end = threading.Event()
    held = holder(place, check=lambda number: end.wait(60))
    new = place.held["b"]
    with serve({"digits": held}, path):
        agent(path).swap(new)
        with pytest.raises(HealthError) as raised:
            agent(path, 0.3).verify(new, None)
        assert raised.value.code == "health.timed_out"
        assert agent(path).revert(place.held["a"]).digest == digest(1)
        with held.lease(timeout=20) as number:
            assert number.value == 1
        end.set()


@pytest.mark.parametrize(("status", "accepted"), [(0, True), (1, False)])
def test_the_health_command_judges_too(
    place: Place, path: Path, status: int, accepted: bool
) -> None:
    command = [sys.executable, "-c", f"raise SystemExit({status})"]
    new = place.held["b"]
    with serve({"digits": holder(place)}, path):
        asked = agent(path, health_command=command)
        asked.swap(new)
        if accepted:
            assert asked.verify(new, None).health == "passed"
        else:
            with pytest.raises(HealthError):
                asked.verify(new, None)


# Real programs, killed and started again.


class Host:
    """A program in a process of its own."""

    def __init__(self, place: Place, path: Path, checkout: Path) -> None:
        self._arguments = [str(place.directory), str(path)]
        self._checkout = checkout
        self._process: subprocess.Popen[str] | None = None

    def start(self, *way: str) -> None:
        command = [sys.executable, "-m", "tests.runtimes.number", *self._arguments, *way]
        self._process = subprocess.Popen(
            command,
            cwd=self._checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def restart(self, *way: str) -> None:
        self.kill()
        self.start(*way)

    def answer(self) -> float:
        assert self._process is not None
        self._process.stdin.write("20\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self._process is not None
        return self._process.stdout.readline().strip()


@pytest.fixture
def host(place: Place, path: Path, checkout: Path) -> Iterator[Host]:
    made = Host(place, path, checkout)
    yield made
    made.kill()


@pytest.mark.parametrize("when", range(4))
def test_a_program_killed_before_any_call_ends_right(
    when: int, place: Place, path: Path, host: Host
) -> None:
    old, new, asked = place.held["a"], place.held["b"], agent(path)
    host.start("pass")
    turn = iter(range(4))

    def before_the_next_call() -> None:
        if next(turn) == when:
            host.restart("pass")

    before_the_next_call()
    asked.prepare(new)
    place.note("swapping", "a")
    place.use("b")
    before_the_next_call()
    asked.swap(new)
    place.note("verifying", "a")
    before_the_next_call()
    assert asked.verify(new, None).health == "passed"
    place.note("committed", "a")
    before_the_next_call()
    asked.confirm(new)
    assert host.answer() == 2
    place.note("rolled_back", "a")
    place.use("a")
    if when == 3:
        host.restart("pass")
    assert asked.revert(old).digest == old.digest
    assert host.answer() == 1


def test_a_program_killed_while_it_checks_is_asked_again(
    place: Place, path: Path, host: Host
) -> None:
    new, asked = place.held["b"], agent(path, 60)
    host.start("block")
    place.note("swapping", "a")
    place.use("b")
    asked.swap(new)
    place.note("verifying", "a")
    verdicts: list[Any] = []

    def ask() -> None:
        with pytest.raises(RuntimeAway):
            verdicts.append(asked.verify(new, None))

    judge = threading.Thread(target=ask)
    judge.start()
    while not (place.directory / "checking").exists():
        assert judge.is_alive()
    host.kill()
    judge.join(60)
    assert not verdicts
    host.start("pass")
    verdict = asked.verify(new, None)
    assert (verdict.health, verdict.digest) == ("passed", new.digest)


def test_paths_are_those_of_any_directory(
    place: Place, path: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.directory)
    host.start()
    new = place.held["b"]
    place.use("b")
    agent(path).swap(Weights(new.path.relative_to(place.directory), new.digest, 2))
    assert host.answer() == 2
