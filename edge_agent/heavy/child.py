"""The tasks, each in a process of its own.

The child reads one task from its standard input, answers on its standard output and ends; its logs
go where the agent's go. It lives no longer than the agent: its input stays open while the agent
lives, and it ends itself when that closes. SIGTERM and SIGINT are blocked in it, because a service
manager or a terminal sends them to both, and it is the agent that decides what ends.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent import files
from edge_agent.errors import AgentError
from edge_agent.heavy import About, Inspection
from edge_agent.heavy.messages import MAX_ANSWER_BYTES, pack_promise, unpack_error
from edge_agent.trust.released import Released
from edge_agent.trust.store import Store
from shared.errors import NoSpace, WeftError
from shared.golden import Golden

if TYPE_CHECKING:
    from edge_agent.trust import Promise
    from edge_agent.undo import Side

#: How often the agent says that it lives while it waits for a child.
BEAT_SECONDS = 1.0
#: A child that takes longer hangs.
MAX_SECONDS = 3600.0
#: The child finds the very modules that run here, wherever it is started.
_START = (
    "import sys; sys.path[:] = sys.argv[1:]; from edge_agent.heavy.__main__ import main; main()"
)
#: The cores are for the device's own work; and each thread of a BLAS takes memory.
_ONE_CORE = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_READ_BYTES = 1 << 16
_log = logging.getLogger(__name__)


class Child:
    """See `Heavy`. `beat` is called at least every BEAT_SECONDS while a task is waited for."""

    def __init__(self, beat: Callable[[], None] = lambda: None) -> None:
        self._beat = beat
        self._early: _Process | None = None
        self._about: About | None = None

    def begin(self) -> None:
        """See `Heavy`."""
        if self._early is None and self._about is None:
            with contextlib.suppress(AgentError):  # it is asked again when the answer is needed
                self._early = _Process("about", {})

    def end(self) -> None:
        """See `Heavy`."""
        process, self._early = self._early, None
        if process:
            process.end()

    def about(self) -> About:
        """See `Heavy`; asked once only, unless the child died of it."""
        if self._about is not None:
            return self._about
        process, self._early = self._early, None
        try:
            told = self._answer(process or _Process("about", {}))
        except WeftError as error:
            _log.error("%s", error)
            return About([], {}, [], [], error)
        fault = unpack_error(told.pop("fault")) if told["fault"] else None
        self._about = About(**told | {"fault": fault})
        return self._about

    def digest(self, path: Path) -> str | None:
        """See `Heavy`."""
        found: str | None = self._do("digest", path=str(path))
        return found

    def inspect(self, packages: Sequence[tuple[Path, Promise]], base: Path | None) -> Inspection:
        """See `Heavy`."""
        told = [[str(path), pack_promise(promise)] for path, promise in packages]
        said = self._do("inspect", packages=told, base=_text(base))
        golden = Golden.model_validate(said["golden"]) if said["golden"] else None
        return Inspection(said["sizes"], golden)

    def apply(self, package: Path, promise: Promise, base: Path | None, output: Path) -> str:
        """See `Heavy`."""
        with _cleaned(output.parent):
            made: str = self._do(
                "apply",
                package=str(package),
                promise=pack_promise(promise),
                base=_text(base),
                output=str(output),
            )
        return made

    def write_undo(self, package: Path, promise: Promise, base: Path, undo: Path) -> str:
        """See `Heavy`."""
        with _cleaned(undo.parent):
            made: str = self._do(
                "write_undo",
                package=str(package),
                promise=pack_promise(promise),
                base=str(base),
                undo=str(undo),
            )
        return made

    def verify_metadata(
        self, state_dir: Path, model: str, answer: bytes | None, pin: str | None, now: float
    ) -> Released:
        """See `Heavy`."""
        store = Store.of(state_dir, model)
        with _cleaned(store.root.directory), _cleaned(store.own):
            said = self._do(
                "verify_metadata",
                state_dir=str(state_dir),
                model=model,
                answer=base64.b64encode(answer).decode() if answer is not None else None,
                pin=pin,
                now=now,
            )
        with _sensible("verify_metadata"):
            return Released.of(said)

    def toggle(self, weights: Path, undo: Path, to: Side) -> None:
        """See `Heavy`."""
        with _cleaned(undo.parent):
            self._do("toggle", weights=str(weights), undo=str(undo), to=to)

    def _do(self, task: str, **arguments: Any) -> Any:
        return self._answer(_Process(task, arguments))

    def _answer(self, process: _Process) -> Any:
        """What the child says; it is gone afterwards, whatever happens."""
        try:
            with _sensible(process.task):
                answer = process.answer(self._beat)
                if "error" in answer:
                    raise unpack_error(answer["error"])
                return answer["result"]
        finally:
            process.end()


@contextlib.contextmanager
def _sensible(task: str) -> Iterator[None]:
    """Turn what an answer that makes no sense raises into our error."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AgentError("worker_died", f"{task}: the answer makes no sense") from error


@contextlib.contextmanager
def _cleaned(folder: Path) -> Iterator[None]:
    """Remove what a child that dies leaves half-written there; the next one has other names."""
    try:
        yield
    except AgentError as error:
        if error.code == "agent.worker_died":
            with contextlib.suppress(NoSpace):
                files.clean(folder)
        raise


class _Process:
    """One child and its one task."""

    def __init__(self, task: str, arguments: dict[str, Any]) -> None:
        self.task = task
        level = logging.getLogger().level
        told = {"task": task, "log_level": level, "arguments": arguments}
        self._process = _start()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead, which `answer` finds out
            self._process.stdin.write(json.dumps(told).encode() + b"\n")

    def answer(self, beat: Callable[[], None]) -> dict[str, Any]:
        """Wait for it. Raises AgentError `worker_died`; ValueError where it is not JSON."""
        deadline = time.monotonic() + MAX_SECONDS
        said = bytearray()
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        while len(said) <= MAX_ANSWER_BYTES and time.monotonic() < deadline:
            beat()
            if not poll.poll(BEAT_SECONDS * 1000):
                continue
            piece = os.read(pipe, _READ_BYTES)
            if not piece:
                return self._parsed(bytes(said))
            said += piece
        raise self._died(f"no answer after {MAX_SECONDS:g} s and {len(said)} bytes")

    def _parsed(self, said: bytes) -> dict[str, Any]:
        status = self._process.wait()
        if status < 0:
            raise self._died(f"killed by {signal.Signals(-status).name}")
        if status:
            raise self._died(f"ended with {status}")
        answer: dict[str, Any] = json.loads(said)
        return answer

    def _died(self, how: str) -> AgentError:
        return AgentError("worker_died", f"the process that does `{self.task}`: {how}")

    def end(self) -> None:
        """Kill it, if it still runs, and bury it."""
        self._process.kill()
        with self._process, contextlib.suppress(BrokenPipeError):
            pass


def _start() -> subprocess.Popen[bytes]:
    """A child that waits for its task, with the signals blocked that are meant for the agent.

    Where one arrives meanwhile, its handler may raise as they are let in again: the child's input
    is then closed with what is left of it here, and it ends. Raises AgentError `worker_died` where
    there is no memory for it, say.
    """
    command = [sys.executable, "-c", _START, *sys.path]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    try:
        return subprocess.Popen(  # noqa: S603 - our own module, without a shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=_ONE_CORE | os.environ,
        )
    except OSError as error:
        raise AgentError("worker_died", f"{sys.executable} cannot be started: {error}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _text(path: Path | None) -> str | None:
    return str(path) if path else None
