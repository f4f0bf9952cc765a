"""Kind `file`: a program that opens the link `current`, and is told when it leads elsewhere.

It is told by a signal to the process in a pidfile, by a command, or by an HTTP request to this
machine; or not at all, where it looks by itself. A program that is not running need not be told:
it opens the new weights when it starts. What it has loaded, nobody knows; the health command may.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from edge_agent import health
from edge_agent.config import FileRuntime, ModelConfig
from edge_agent.errors import HealthError
from edge_agent.runtimes.base import Verdict, Weights
from shared.golden import Golden

_PIDFILE_BYTES = 64
_log = logging.getLogger(__name__)


class File:
    """See the module, and the contract in `base`."""

    def __init__(
        self, model: str, config: ModelConfig, beat: Callable[[], None] = lambda: None
    ) -> None:
        assert isinstance(config.runtime, FileRuntime)
        self._model, self._config, self._settings = model, config, config.runtime
        self._beat = beat
        self.holds_copy = config.runtime.holds_copy  # as the operator says

    def prepare(self, new: Weights) -> None:
        """Nothing: the program is not asked beforehand."""

    def swap(self, new: Weights) -> None:
        """Tell the program."""
        self._tell(new)

    def verify(self, new: Weights, golden: Golden | None) -> Verdict:  # noqa: ARG002
        """What the health command says; golden samples cannot be run from here."""
        judged = health.check(self._model, self._config, new.path, new.digest, self._beat)
        return Verdict(judged)

    def confirm(self, new: Weights) -> None:
        """Nothing: the program uses them already."""

    def revert(self, old: Weights | None) -> Verdict:
        """Tell the program again; where that fails, it is in the message."""
        try:
            self._tell(old)
        except HealthError as error:
            _log.error("%s: the program could not be told to go back: %s", self._model, error)
            return Verdict("unverified", message=error.message)
        return Verdict("unverified")

    def _tell(self, weights: Weights | None) -> None:
        path, digest = (str(weights.path), weights.digest) if weights else ("", "")
        settings, limit = self._settings, self._settings.notify_timeout_seconds
        if settings.notify_pidfile:
            _signal(settings.notify_pidfile, signal.Signals[f"SIG{settings.notify_signal}"])
        elif settings.notify_command:
            told = health.told(self._model, path, digest)
            _run(settings.notify_command, told, limit, self._beat)
        elif settings.notify_url:
            body = {"model": self._model, "weights": path, "digest": digest}
            _post(settings.notify_url, json.dumps(body).encode(), limit)


def _signal(pidfile: Path, number: signal.Signals) -> None:
    """Signal the process in the file; nothing where no such process is running."""
    try:
        with pidfile.open("rb") as file:
            pid = int(file.read(_PIDFILE_BYTES))
        if pid <= 1:  # 0 and below are whole groups of processes
            raise ValueError("no process of that id is meant")
        os.kill(pid, number)
    except (FileNotFoundError, ProcessLookupError):
        _log.info("%s: no such process is running", pidfile)
    except (OSError, ValueError, OverflowError) as error:
        raise HealthError("not_notified", f"{pidfile}: {error}") from error


def _run(
    command: list[str], told: dict[str, str], timeout: float, beat: Callable[[], None]
) -> None:
    try:
        health.run_command(command, told, timeout, "the notification", beat)
    except HealthError as error:
        raise HealthError("not_notified", error.message) from error


def _post(url: str, body: bytes, timeout: float) -> None:
    """POST once, without proxies or redirects; only the status of the answer counts."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.connect()
        with _bounded(connection, timeout):
            path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            status = connection.getresponse().status
    except ConnectionRefusedError:
        _log.info("%s: no program listens there", url)
        return
    except (OSError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise HealthError("not_notified", f"{url}: {reason}") from error
    finally:
        connection.close()
    if status >= http.client.MULTIPLE_CHOICES:
        raise HealthError("not_notified", f"{url}: the program answers {status}")


@contextlib.contextmanager
def _bounded(connection: http.client.HTTPConnection, timeout: float) -> Iterator[None]:
    """Bound the whole exchange: time-outs of the socket are of each read, and bytes can drip."""
    opened, is_over = connection.sock, threading.Event()

    def hang_up() -> None:
        is_over.set()
        with contextlib.suppress(OSError):
            opened.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout, hang_up)
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException):
        if not is_over.is_set():
            raise
    finally:
        timer.cancel()
    if is_over.is_set():
        raise TimeoutError(f"no answer in {timeout:g} s")
