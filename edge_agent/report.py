"""Reports to the server: each is on disk, under its counter, before it is sent.

A report that was not answered is sent again, byte for byte the same, until it is; so the server
hears of each update at least once, and can tell a repetition from a copy of the device.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_agent import files
from edge_agent.errors import AgentError, Refused
from shared.wire import Report

#: A device that is away for years must not fill its disk with reports: the oldest go first.
MAX_PENDING = 100
#: Refusals of the device rather than of a report, which an operator can take back: nothing is lost.
HELD = frozenset(
    f"device.{reason}"
    for reason in (
        *("not_accepted", "cloned", "counter_reused"),
        *("unsigned", "bad_signature", "key_unknown"),
    )
)
_SAME_UPDATE = {"model", "assignment", "version", "result", "state", "error"}
_log = logging.getLogger(__name__)


class _Persisted(BaseModel):
    """The last counter used, the reports not yet answered, and the inventory as last told."""

    model_config = ConfigDict(frozen=True)
    format: Literal[1] = 1
    counter: int = 0
    pending: list[str] = []
    told: str | None = None


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

    @property
    def told(self) -> str | None:
        """The inventory as the server was last told of it; None: never."""
        return self._state.told

    def note_told(self, inventory: str) -> None:
        """Persist what the server is told, once that cannot be lost any more."""
        self._persist(self._state.counter, self._state.pending, inventory)

    def add(self, *reports: Report, told: str | None = None) -> None:
        """Persist reports under the next counters, but those that were added already and wait.

        The step that adds them may be repeated after a crash. `told`: the inventory that they tell.
        """
        waiting = [Report.model_validate_json(body) for body in self._state.pending]
        counter, pending = self._state.counter, list(self._state.pending)
        for report in reports:
            if not any(_same_update(report, other) for other in _latest(report, waiting)):
                counter += 1
                pending.append(_numbered(report, counter))
        if counter > self._state.counter or told:
            self._persist(counter, pending[-MAX_PENDING:], told)

    def begin_after(self, counter: int) -> None:
        """Number all reports above `counter`, which the server knows already; also those that wait.

        It is what the agent goes by whose reports were lost, or put back to an earlier state.
        """
        waiting = [Report.model_validate_json(body) for body in self._state.pending]
        if not waiting and counter <= self._state.counter:
            return
        if waiting and waiting[0].counter > counter:
            return
        last = max(counter, self._state.counter)
        renumbered = [_numbered(report, last + place) for place, report in enumerate(waiting, 1)]
        self._persist(last + len(waiting), renumbered)

    def send(self, send: Callable[[bytes], None]) -> bool:
        """Send what waits, in order; False where the server takes no reports of this device now.

        Raises ServerAway; a report that is refused for what it says is dropped.
        """
        while self._state.pending:
            body, *rest = self._state.pending
            try:
                send(body.encode())
            except Refused as error:
                if error.reason in HELD:
                    _log.warning("%d reports wait: %s", len(rest) + 1, error)
                    return False
                _log.error("a report is dropped: %s; it was: %s", error, body)
            self._persist(self._state.counter, rest)
        return True

    def _persist(self, counter: int, pending: list[str], told: str | None = None) -> None:
        state = _Persisted(counter=counter, pending=pending, told=told or self._state.told)
        files.write(self._path, state.model_dump_json().encode(), files.PRIVATE)
        self._state = state


def _numbered(report: Report, counter: int) -> str:
    """As it is sent: what goes without saying is left out, for each byte counts on some links."""
    return report.model_copy(update={"counter": counter}).model_dump_json(exclude_defaults=True)


def _latest(report: Report, waiting: list[Report]) -> Iterator[Report]:
    """Those that it may repeat: the last one of its model, as all may happen again some time.

    An update may be put off for one reason and another in turns: all those at the end, then.
    """
    of_model = (other for other in reversed(waiting) if other.model == report.model)
    if report.state == "deferred":
        return takewhile(lambda other: other.state == "deferred", of_model)
    return islice(of_model, 1)


def _same_update(one: Report, other: Report) -> bool:
    if one.assignment is None and one.version is None:  # about no update: all of it counts
        return _content(one) == _content(other)
    return one.model_dump(include=_SAME_UPDATE) == other.model_dump(include=_SAME_UPDATE)


def _content(report: Report) -> dict[str, Any]:
    """What a report tells, without what differs each time."""
    return report.model_dump(exclude={"counter": True, "capabilities": {"free_bytes"}})
