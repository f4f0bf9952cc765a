"""Reports to the server: each is on disk, under its counter, before it is sent.

A report that was not answered is sent again, byte for byte the same, until it is; so the server
hears of each update at least once, and can tell a repetition from a copy of the device.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_agent import __version__, files
from edge_agent.api import DeviceApi
from edge_agent.errors import AgentError
from shared import coding, methods, package
from shared.errors import Unreachable
from shared.tensors import FLOATS
from shared.wire import MAX_CHAIN, Capabilities, Report

#: A device that is away for years must not fill its disk with reports: the oldest go first.
MAX_PENDING = 100
_SAME_UPDATE = {"model", "assignment", "version", "result", "state", "error"}
_log = logging.getLogger(__name__)


class _Persisted(BaseModel):
    """The content of the file: the last counter used, and the reports not yet answered."""

    model_config = ConfigDict(frozen=True)
    format: Literal[1] = 1
    counter: int = 0
    pending: list[str] = []


class Outbox:
    """The reports of one device. Raises AgentError `state_damaged` where its file is unreadable."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._state = _Persisted.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            self._state = _Persisted()
        except (OSError, ValidationError) as error:
            raise AgentError("state_damaged", f"{path} cannot be read") from error

    @property
    def pending(self) -> int:
        """How many reports wait for an answer."""
        return len(self._state.pending)

    def add(self, report: Report) -> None:
        """Persist a report under the next counter, unless the same one is waiting already.

        The step that adds it may be repeated after a crash, hence the look at what waits.
        """
        waiting = [Report.model_validate_json(body) for body in self._state.pending]
        if any(_same_update(report, other) for other in waiting):
            return
        counter = self._state.counter + 1
        body = report.model_copy(update={"counter": counter}).model_dump_json()
        self._persist(counter, [*self._state.pending, body][-MAX_PENDING:])

    def send(self, api: DeviceApi) -> None:
        """Send what waits, in order. Raises ServerAway; a report that is refused is dropped."""
        while self._state.pending:
            body, *rest = self._state.pending
            try:
                api.report(body.encode())
            except Unreachable as error:
                if error.code != "server.refused":
                    raise
                _log.error("a report is dropped: %s; it was: %s", error, body)
            self._persist(self._state.counter, rest)

    def _persist(self, counter: int, pending: list[str]) -> None:
        state = _Persisted(counter=counter, pending=pending)
        files.write(self._path, state.model_dump_json().encode(), files.PRIVATE)
        self._state = state


def capabilities(directory: Path) -> Capabilities:
    """What this agent can decode, and the space it has."""
    return Capabilities(
        agent=__version__,
        formats=[package.FORMAT],
        methods={method.id: method.version for method in methods.METHODS.values()},
        coders=sorted(coding.CODERS),
        dtypes=sorted(FLOATS),
        free_bytes=files.free_bytes(directory),
        chain=MAX_CHAIN,
    )


def _same_update(one: Report, other: Report) -> bool:
    return one.model_dump(include=_SAME_UPDATE) == other.model_dump(include=_SAME_UPDATE)
