"""The agent as a process: one lock, one server, all models; poll, drive what is due, report, wait.

Polls go on at the server's interval whatever the updates do, so that the server can take one back
on its way. Between them each update goes as far as it can, or for one slice of its download.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edge_agent import __version__, files
from edge_agent.agent.by_hand import Bring, begin_to_go_back, begin_to_install, give_up
from edge_agent.agent.clock import Clock
from edge_agent.agent.model import Device
from edge_agent.agent.outcomes import CHANGING, ENDING
from edge_agent.agent.telling import Teller
from edge_agent.agent.update import Update
from edge_agent.api import Backoff, DeviceApi
from edge_agent.config import Config
from edge_agent.errors import Decommissioned, ServerAway
from edge_agent.heavy import Heavy
from edge_agent.heavy.child import Child
from edge_agent.journal import Held, SlotName
from edge_agent.link import Link
from edge_agent.report import Outbox
from edge_agent.trust.root import RootStore, begin
from shared.errors import WeftError
from shared.wire import DesiredModel

#: Goes of one update in a row that bring it nowhere, after which `round` leaves it for later.
MAX_FRUITLESS_GOES = 3
_log = logging.getLogger(__name__)


class Stopped(BaseException):
    """The agent was asked to end; see `edge_agent.stopping`."""


@dataclass
class Polls:
    """How often the server was asked, and answered; Unix times of the last ones."""

    asked: int = 0
    asked_at: float | None = None
    answered: int = 0
    answered_at: float | None = None


class Agent:
    """Everything between the start of the process and its end."""

    def __init__(self, config: Config, device: Device) -> None:
        self._device, self.clock = device, device.clock
        self._etag: str | None = None
        self._wanted: dict[str, DesiredModel] = {}
        self._interval, self._next_poll = config.poll_seconds, self.clock.now()
        self._backoff, self.is_away = Backoff(), False
        self.hold: str | None = None
        self.polls, self.started_at = Polls(), time.time()
        self.updates: dict[str, Update] = {}
        self._teller = Teller(config, device, self.updates.values())
        self._unopened: dict[str, WeftError] = {}
        self._open()

    def _open(self) -> None:
        """Open each model; one that cannot be (its `initial` may come) is tried at each poll."""
        for name in self._device.config.models:
            if name not in self.updates:
                self._open_one(name)

    def _open_one(self, name: str) -> None:
        self._unopened.pop(name, None)
        try:
            self.updates[name] = Update(name, self._device.config.models[name], self._device)
        except WeftError as error:
            if error.code == "agent.state_too_new":  # all of the agent is too old
                raise
            _log.error("%s: %s", name, error)
            self._unopened[name] = error

    def _opened(self, name: str) -> Update:
        if name in self._unopened:
            raise self._unopened[name]
        return self.updates[name]

    def recover(self) -> list[WeftError]:
        """Finish what was in the middle of changing the weights in use, before asking anybody."""
        urgent = [u for u in self.updates.values() if u.journal.state in CHANGING | ENDING]
        return [*self._unopened.values(), *_errors(update.go() for update in urgent)]

    def turn(self) -> list[WeftError]:
        """Do what is due now: a poll, one go of each update, the reports; says what went wrong."""
        errors: list[WeftError] = []
        if self.clock.now() >= self._next_poll:
            errors += self._try(self._poll) or self._consider()
        errors += _errors(update.go() for update in self._due())
        errors += self._try(self._teller.note_changes)
        if not self.is_away:
            errors += self._try(self._teller.send)
        return errors

    @property
    def traffic_bytes(self) -> int:
        """Bytes sent and received since the start."""
        return self._device.link.carried

    def pause(self) -> float:
        """Seconds until something is due."""
        due = [self._next_poll, *(update.not_before for update in self.updates.values())]
        return max(0.0, min(due) - self.clock.now())

    def round(self, patience: int = MAX_FRUITLESS_GOES) -> tuple[float, list[WeftError]]:
        """Poll once, bring each update as far as it goes, pauses included, and report.

        An update is left for later when `patience` goes in a row have brought it nowhere. Returns
        the seconds until the next poll, and what went wrong with single models. Raises
        ServerAway, and other errors for which the agent cannot talk to the server; updates that
        need nothing more from it are finished before that.
        """
        away = self._try(self._poll)
        errors = [] if away else self._consider()
        self._teller.note_changes()
        errors += self._settle(patience)
        if away:
            raise away[0]
        self._teller.send()
        return self._interval, errors

    def go_back(self, model: str) -> list[WeftError]:
        """Put a model back to the weights that were in use before; says what went wrong.

        Raises AgentError where there is nothing to go back to, or no way now.
        """
        begin_to_go_back(self._opened(model))
        return self._carry_out(self._opened(model))

    def held(self, model: str) -> dict[SlotName, Held]:
        """What the device holds of a model. Raises what keeps the model from being opened."""
        return self._opened(model).journal.slots

    def install(self, desired: DesiredModel, metadata: bytes, bring: Bring) -> list[WeftError]:
        """Install what was brought by hand; says what went wrong.

        Raises TrustError and BadMetadata where it is not released by the metadata that came with
        it, AgentError where there is no way now, NoSpace, and what `bring` raises.
        """
        begin_to_install(self._opened(desired.model), desired, metadata, bring)
        return self._carry_out(self._opened(desired.model))

    def _carry_out(self, update: Update) -> list[WeftError]:
        """Bring an order to its end, and report it, now or as soon as the server is there."""
        errors = self._settle(MAX_FRUITLESS_GOES, [update])
        give_up(update)
        self._try(self._teller.introduce)
        if not self.is_away:
            self._try(self._teller.send)
        return errors

    def _settle(self, patience: int, updates: Sequence[Update] = ()) -> list[WeftError]:
        """Drive until each update rests, waits for something, or has gone nowhere too often."""
        chosen = {update.model: update for update in updates} or self.updates
        last: dict[str, WeftError | None] = dict.fromkeys(chosen)
        while going := [
            update
            for name, update in chosen.items()
            if not update.waits and (last[name] is None or update.fruitless < patience)
        ]:
            update = min(going, key=lambda each: each.not_before)
            self.clock.wait(max(0.0, update.not_before - self.clock.now()))
            last[update.model] = update.go()
        return _errors(iter(last.values()))

    def _due(self) -> list[Update]:
        now = self.clock.now()
        return [update for update in self.updates.values() if update.not_before <= now]

    def _try(self, talk: Callable[[], None]) -> list[WeftError]:
        """Talk to the server; where that fails, the next poll comes after a growing pause."""
        try:
            talk()
        except WeftError as error:
            _log.log(
                logging.WARNING if isinstance(error, ServerAway) else logging.ERROR, "%s", error
            )
            wish = error.retry_after if isinstance(error, ServerAway | Decommissioned) else None
            self._next_poll = self.clock.now() + self._backoff.next(wish)
            self.is_away = True
            return [error]
        return []

    def _poll(self) -> None:
        """Ask what is wanted."""
        self.polls.asked += 1
        self.polls.asked_at = time.time()
        self._open()
        for update in self.updates.values():
            update.recheck()
        self._teller.introduce()
        self._teller.send()
        answer = self._device.api.desired(self._etag)
        if self.is_away or not self.polls.answered:
            _log.info("%s answers", self._device.config.server)
        self.polls.answered += 1
        self.polls.answered_at = time.time()
        self._interval = answer.interval or self._device.config.poll_seconds
        self._next_poll = self.clock.now() + self._interval
        self._backoff.reset()
        self.is_away = False
        if answer.desired is not None:
            self._wanted = {model.model: model for model in answer.desired.models}
            self._etag = answer.etag
            self._note_hold(answer.desired.held)
            for name in sorted(self._wanted.keys() - self._device.config.models.keys()):
                _log.warning("%s: offered, but not in this device's configuration", name)
        if answer.desired is not None and answer.desired.report:
            self._teller.tell()
        for update in self.updates.values():
            update.look_after_releases()

    def _note_hold(self, hold: str | None) -> None:
        """Say why the server offers the device nothing at all, where that is so."""
        if hold and hold != self.hold:
            _log.warning("the server offers nothing to this device: %s", hold)
        if self.hold and not hold:
            _log.info("the server no longer holds this device back: %s", self.hold)
        self.hold = hold

    def _consider(self) -> list[WeftError]:
        """Take on what is wanted; what has not changed is considered anew, it may have waited."""
        return _errors(u.consider(self._wanted.get(name)) for name, u in self.updates.items())


def _errors(found: Iterator[WeftError | None]) -> list[WeftError]:
    return [error for error in found if error is not None]


@contextlib.contextmanager
def running(
    config: Config,
    wait: Callable[[float], None],
    *,
    beat: Callable[[], None] = lambda: None,
    heavy: Heavy | None = None,
) -> Iterator[Agent]:
    """An agent on its state directory, which it alone works in. Raises AgentError `busy`.

    `wait(seconds)` passes time; `beat` is called often while something takes long.
    """
    files.make_directory(config.state_dir)
    with contextlib.ExitStack() as stack:
        stack.enter_context(files.lock(config.state_dir / "lock"))
        files.clean(config.state_dir)
        root = RootStore(config.state_dir / "trust")
        root.prepare()
        pin = begin(config, root)
        heavy = heavy or Child(beat)
        stack.callback(heavy.end)
        heavy.begin()
        clock = Clock(wait)
        link = Link(config, clock.wait, clock=clock.now)
        api = DeviceApi(config, f"weft/{__version__}", link.count, beat)
        stack.callback(api.close)
        outbox = Outbox(config.state_dir / "reports.json")
        yield Agent(config, Device(config, api, outbox, clock, link, heavy, beat, pin))


def run_for_ever(agent: Agent, show: Callable[[Agent], float] = lambda _: math.inf) -> None:
    """Turns without end; only Stopped, raised by a signal, leaves.

    `show` is called between them, and says after how many seconds it wants to be called again.
    """
    agent.recover()
    while True:
        agent.turn()
        later = show(agent)
        pause = min(agent.pause(), later)
        _log.debug("nothing is due for %.1f s", pause)
        agent.clock.wait(pause)
