"""Whether new weights do their job, asked of a program that the operator names.

The command is started without a shell; WEFT_MODEL, WEFT_WEIGHTS (path) and WEFT_DIGEST tell it
what to judge. Exit status 0 accepts. A device without a command says `unverified`.

A command is in a process group of its own, which is killed as a whole when the command has ended,
when its time is over, and when the agent stops. Of what it says only the end is kept, however much
that is.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from edge_agent.config import PREFIX, ModelConfig
from edge_agent.errors import HealthError
from shared.wire import Health

_OUTPUT_BYTES = 2000
_READ_BYTES = 1 << 16
#: So many reads empty a pipe to which nobody writes any more.
_PIPE_READS = 17
#: Between two signs of life, and two looks at whether the command has ended.
_TURN_SECONDS = 0.5
_log = logging.getLogger(__name__)


def check(
    model: str,
    config: ModelConfig,
    weights: Path,
    digest: str,
    beat: Callable[[], None] = lambda: None,
) -> Health:
    """`passed` or `unverified`; raises HealthError where the weights are not accepted."""
    if config.health_command is None:
        return "unverified"
    limit = config.health_timeout_seconds
    said = run_command(
        config.health_command, told(model, weights, digest), limit, "the check", beat
    )
    _log.info("%s: the health check passed: %s", model, said)
    return "passed"


def told(model: str, weights: Path | str, digest: str) -> dict[str, str]:
    """What a command learns of the weights in question."""
    return {"WEFT_MODEL": model, "WEFT_WEIGHTS": str(weights), "WEFT_DIGEST": digest}


def run_command(
    command: Sequence[str],
    variables: Mapping[str, str],
    timeout: float,
    name: str,
    beat: Callable[[], None],
) -> str:
    """Run to the end and return the end of what was said.

    Raises HealthError `failed`, `timed_out` or `not_started`. `beat` is called at least once a
    second.
    """
    until = time.monotonic() + timeout
    said = bytearray()
    with _started(command, variables) as process:
        while process.poll() is None:
            if time.monotonic() >= until:
                raise HealthError("timed_out", f"no answer from {name} in {timeout:g} s")
            beat()
            _listen(process, said, min(_TURN_SECONDS, max(0.0, until - time.monotonic())))
        _kill(process)
        for _ in range(_PIPE_READS):
            _listen(process, said, 0)
    text = said.decode(errors="replace").strip()
    if process.returncode:
        ended = f"{name} ended with {process.returncode}"
        raise HealthError("failed", f"{ended}: {text}" if text else f"{ended} and said nothing")
    return text


@contextlib.contextmanager
def _started(
    command: Sequence[str], variables: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a group of its own; nothing of the group is left afterwards."""
    # The agent's own settings stay its own: the enrolment token may be among them.
    given = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    try:
        process = subprocess.Popen(  # noqa: S603 - the operator's own command, without a shell
            command,
            env=given | dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise HealthError("not_started", f"{command[0]}: {error.strerror}") from error
    try:
        yield process
    finally:
        _kill(process)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _listen(process: subprocess.Popen[bytes], said: bytearray, seconds: float) -> None:
    """Take what the command says next; wait so long for it, or for the command's end."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(seconds):
            return
    piece = os.read(process.stdout.fileno(), _READ_BYTES)
    said += piece
    del said[:-_OUTPUT_BYTES]
    if not piece:  # it has closed its output, and may go on
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the command, and what it has started and left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
