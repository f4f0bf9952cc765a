"""The commands that work as the agent: on its state directory, under its lock, until a signal.

What they return is what `edge_agent.cli` prints.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_agent import __version__, files
from edge_agent.agent.loop import Agent, Stopped, run_for_ever, running
from edge_agent.agent.showing import Showing
from edge_agent.agent.status import status
from edge_agent.config import Config
from edge_agent.keys import DeviceKey
from edge_agent.notify import Notifier
from edge_agent.owner import become_owner
from edge_agent.stopping import end_on_signals
from shared.errors import WeftError

_log = logging.getLogger(__name__)


def run(config: Config) -> dict[str, Any]:
    """Poll and install until a signal ends it, which is its ordinary end."""
    faulthandler.enable()  # the watchdog ends the agent by SIGABRT: the log then says where it was
    notifier = Notifier()
    try:
        with _agent(config, notifier) as agent:
            _log.info("edge-agent %s for %s, with %s", __version__, config.server, config.state_dir)
            notifier.ready()
            run_for_ever(agent, Showing(config, notifier.status))
    except Stopped:
        _log.info("stopped")
    return {}


def once(config: Config) -> dict[str, Any]:
    """Poll once, install, report."""

    def work(agent: Agent) -> list[WeftError]:
        return agent.recover() + agent.round()[1]

    become_owner(config.state_dir)
    return _done(config, work)


def key(config: Config) -> dict[str, Any]:
    """The device's public key, by which an operator can expect it; made where there is none."""
    become_owner(config.state_dir)
    files.make_directory(config.state_dir)
    found = DeviceKey(config.state_dir / "device.key")
    if not found.exists:
        with files.lock(config.state_dir / "lock"):
            found.make()
    return {"key": found.public}


def rollback(config: Config, model: str) -> dict[str, Any]:
    """Go back to the weights used before."""

    def work(agent: Agent) -> list[WeftError]:
        agent.recover()
        return agent.go_back(model)

    become_owner(config.state_dir)
    return _done(config, work)


def apply_bundle(config: Config, path: Path, *, rollback: bool = False) -> dict[str, Any]:
    """Install what was brought along; with `rollback`, an older version too."""
    from edge_agent import bundle  # not in the memory of an agent that runs for years

    with bundle.opened(path) as reader:  # which the owner of the state need not be able to

        def work(agent: Agent) -> list[WeftError]:
            agent.recover()
            return bundle.install(agent, config, reader, rollback=rollback)

        become_owner(config.state_dir)
        return _done(config, work)


def _done(config: Config, work: Callable[[Agent], Sequence[WeftError]]) -> dict[str, Any]:
    """What is held after the work, and what went wrong with it."""
    try:
        with _agent(config, Notifier()) as agent:
            errors = work(agent)
    except Stopped:
        return {"exit_status": 2, "stopped": True}
    worst = max((error.exit_status for error in errors), default=0)
    told = [error.described for error in errors]
    return {**status(config), "errors": told, "exit_status": worst}


@contextlib.contextmanager
def _agent(config: Config, notifier: Notifier) -> Iterator[Agent]:
    """The agent, which a signal ends by Stopped."""
    end_on_signals(Stopped, notifier.stopping)
    with running(config, notifier.wait, beat=notifier.beat) as agent:
        yield agent
