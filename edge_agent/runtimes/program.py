"""Kind `program`: a program that takes new weights while it runs, asked over its Unix socket.

The other end is `serving`, in the program. A question is asked again where the program hangs up
before it has answered: it may have been restarted, and every call finds its work done already. One
that does not run is asked again by the agent, later.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from pydantic import ValidationError

from edge_agent import health
from edge_agent.config import ModelConfig, ProgramRuntime
from edge_agent.errors import HealthError, RuntimeAway, RuntimeRefused
from edge_agent.runtimes.base import Verdict, Weights
from edge_agent.runtimes.talk import MAX_LINE_BYTES, Answer, Ask, Named, Verb
from shared.golden import Golden

_TURN_SECONDS = 0.5
_AGAIN_SECONDS = 0.2


class NotRunning(RuntimeAway):
    """Nobody listens at the socket."""


class Program:
    """See the module, and the contract in `base`."""

    holds_copy = True  # one that does not refuses to prepare for what is not there yet

    def __init__(
        self, model: str, config: ModelConfig, beat: Callable[[], None] = lambda: None
    ) -> None:
        assert isinstance(config.runtime, ProgramRuntime)
        self._model, self._config, self._settings = model, config, config.runtime
        self._beat = beat

    def prepare(self, new: Weights) -> None:
        """See `base`."""
        self._ask("prepare", new, self._settings.timeout_seconds)

    def swap(self, new: Weights) -> None:
        """See `base`; a program that has hung up is asked again."""
        self._insist("swap", new, self._settings.timeout_seconds)

    def verify(self, new: Weights, golden: Golden | None) -> Verdict:
        """What the program says, and the health command where there is one."""
        limit = self._config.health_timeout_seconds
        verdict = self._insist("verify", new, limit, golden)
        if verdict.digest != new.digest:
            raise HealthError("wrong_weights", f"the program holds {verdict.digest}")
        judged = health.check(self._model, self._config, new.path, new.digest, self._beat)
        passed = "passed" in (judged, verdict.health)
        return Verdict("passed" if passed else "unverified", verdict.digest, verdict.message)

    def confirm(self, new: Weights) -> None:
        """See `base`."""
        try:
            self._ask("confirm", new, self._settings.timeout_seconds)
        except NotRunning:
            return

    def revert(self, old: Weights | None) -> Verdict:
        """See `base`."""
        try:
            return self._ask("revert", old, self._settings.timeout_seconds)
        except NotRunning:
            return Verdict("unverified", message="the program is not running")

    def _insist(
        self, verb: Verb, new: Weights, limit: float, golden: Golden | None = None
    ) -> Verdict:
        """Ask until there is an answer; raises HealthError `timed_out` where there is none.

        Raises NotRunning at once: a program that is starting may take longer than any answer, and
        others need not wait for it.
        """
        until = time.monotonic() + limit
        while True:
            left = until - time.monotonic()
            try:
                return self._ask(verb, new, max(left, _TURN_SECONDS), golden)
            except NotRunning:
                raise
            except RuntimeAway as error:
                if until - time.monotonic() < _AGAIN_SECONDS:
                    raise HealthError("timed_out", error.message) from error
            self._beat()
            time.sleep(_AGAIN_SECONDS)

    def _ask(
        self, verb: Verb, weights: Weights | None, limit: float, golden: Golden | None = None
    ) -> Verdict:
        """One question, one answer. Raises RuntimeAway, RuntimeRefused, HealthError."""
        named = Named.of(weights) if weights else None
        ask = Ask(do=verb, model=self._model, weights=named, golden=golden, seconds=limit)
        line = self._exchange(ask.model_dump_json(exclude_defaults=False).encode(), limit)
        try:
            answer = Answer.model_validate_json(line)
        except ValidationError as error:
            raise RuntimeRefused("refused", f"{self._where}: this is no answer") from error
        if answer.fault:
            raise _raised(answer.fault.code, answer.fault.message)
        return answer.verdict.verdict() if answer.verdict else Verdict("unverified")

    def _exchange(self, question: bytes, limit: float) -> bytes:
        until = time.monotonic() + limit
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(min(limit, _TURN_SECONDS))
            try:
                connection.connect(str(self._settings.socket))
                connection.sendall(question + b"\n")
            except (FileNotFoundError, ConnectionRefusedError) as error:
                raise NotRunning("away", f"{self._where}: nobody listens") from error
            except OSError as error:
                raise RuntimeAway("away", f"{self._where}: {error}") from error
            return self._listen(connection, until)

    def _listen(self, connection: socket.socket, until: float) -> bytes:
        """The answer, to the end of its line."""
        said = bytearray()
        while not said.endswith(b"\n"):
            if time.monotonic() >= until or len(said) > MAX_LINE_BYTES:
                raise RuntimeAway("away", f"{self._where}: no answer in time")
            self._beat()
            try:
                piece = connection.recv(MAX_LINE_BYTES)
            except TimeoutError:
                continue
            except OSError as error:
                raise RuntimeAway("away", f"{self._where}: {error}") from error
            if not piece:
                raise RuntimeAway("away", f"{self._where}: the program hung up")
            said += piece
        return bytes(said)

    @property
    def _where(self) -> str:
        return str(self._settings.socket)


def _raised(code: str, message: str) -> Exception:
    """The program's error, as one of ours; those of files and tensors are refusals."""
    area, _, name = code.partition(".")
    if area == HealthError.area and name in HealthError.codes:
        return HealthError(name, message)
    return RuntimeRefused("refused", message if area == "runtime" else f"{message} [{code}]")
