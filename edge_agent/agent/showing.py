"""What the running agent shows of itself: to the service manager, in memory, and as figures."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

from edge_agent import files
from edge_agent.agent.live import Live, live_file
from edge_agent.agent.loop import Agent
from edge_agent.agent.metrics import rendered
from edge_agent.agent.status import status
from edge_agent.config import Config
from shared.errors import WeftError

#: The least between two writes of a file.
LIVE_SECONDS, METRICS_SECONDS = 1.0, 15.0
_log = logging.getLogger(__name__)


class Showing:
    """Shows an agent of these settings; `tell` takes a line for the service manager."""

    def __init__(self, config: Config, tell: Callable[[str], None]) -> None:
        self._config, self._tell = config, tell
        self._live = _Shown(live_file(config), LIVE_SECONDS)
        self._fault = ""
        self._metrics = config.metrics_file and _Shown(config.metrics_file, METRICS_SECONDS)

    def __call__(self, agent: Agent) -> float:
        """Show what is so now; returns the seconds after which there is something left to show."""
        try:
            later, self._fault = self._show(agent), ""
        except WeftError as error:  # of a disk that cannot be read
            if error.message != self._fault:  # once, not at every turn
                _log.error("%s", error)
            later, self._fault = math.inf, error.message
        return later

    def _show(self, agent: Agent) -> float:
        self._tell(in_a_line(agent))
        now, live = agent.clock.now(), Live.of(agent, self._config)
        later = math.inf
        if self._config.run_dir.is_dir():
            later = self._live.show(live.model_dump_json, now)
        if self._metrics:
            text = lambda: rendered(status(self._config, live), live)  # noqa: E731
            later = min(later, self._metrics.show(text, now))
        return later


class _Shown:
    """A file that is written when its text has changed, and not again for `seconds`."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path, self._seconds = path, seconds
        self._text, self._next, self._fault = "", -math.inf, ""

    def show(self, make: Callable[[], str], now: float) -> float:
        """Write what `make` gives; returns the seconds after which to try again, if need be."""
        text = make()
        if text == self._text:
            return math.inf
        if now < self._next:
            return self._next - now
        self._next = now + self._seconds
        try:
            files.write(self._path, text.encode())
            self._text, self._fault = text, ""
        except WeftError as error:
            if error.message != self._fault:  # once, not at every turn
                _log.warning("%s", error)
            self._text, self._fault = text, error.message
        return math.inf


def in_a_line(agent: Agent) -> str:
    """For `systemctl status`."""
    parts = []
    for name, update in agent.updates.items():
        journal, held = update.journal, update.held
        has = f"version {held.version}" if held and held.version else "its first weights"
        text = f"{name}: {has if held else 'nothing yet'}"
        if journal.target:
            text += f", {journal.state} version {journal.target.version or 'unnamed'}"
        if update.releases.have_expired:
            text += ", its metadata have expired"
        parts.append(text)
    if agent.hold:
        parts.append(f"the server offers nothing: {agent.hold}")
    if agent.is_away:
        parts.append("the server does not answer")
    return "; ".join(parts)
