"""The agent as a process: one lock, one server, all models; poll, drive, report, wait."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

from edge_agent import __version__, files
from edge_agent.agent.flow import URGENT, Update
from edge_agent.agent.model import Device
from edge_agent.api import Backoff, DeviceApi, Identity, load_identity, persist_identity
from edge_agent.config import Config
from edge_agent.errors import AgentError, DownloadError, ServerAway
from edge_agent.inventory import attributes, capabilities, told
from edge_agent.link import Link
from edge_agent.report import Outbox
from shared.decode import known_answer
from shared.errors import BadResult, Unreachable, WeftError
from shared.wire import DesiredModel, Enrolment, HeldModel, Report

_log = logging.getLogger(__name__)


class Stopped(BaseException):
    """The agent was asked to end. It may strike anywhere: any instruction may be the last."""


class Agent:
    """Everything between the start of the process and its end."""

    def __init__(self, config: Config, device: Device) -> None:
        self._config, self._api, self._outbox = config, device.api, device.outbox
        self._identity = config.state_dir / "identity.json"
        self._etag: str | None = None
        self._wanted: dict[str, DesiredModel] = {}
        self._enrolled = False
        self._attributes = attributes(config.attributes)
        self.updates = {name: Update(name, model, device) for name, model in config.models.items()}

    def recover(self) -> list[WeftError]:
        """Finish what was in the middle of changing the weights in use, before asking anybody."""
        return self._drive([u for u in self.updates.values() if u.journal.state in URGENT])

    def round(self) -> tuple[float, list[WeftError]]:
        """Poll once, bring each model as far as it goes, send the reports.

        Returns the seconds until the next poll, and what went wrong with single models. Raises
        ServerAway, and other errors for which the agent cannot talk to the server; updates that
        need nothing more from it are finished before that.
        """
        away: WeftError | None = None
        interval = None
        try:
            self._enrol()
            self._tell_changes()
            self._outbox.send(self._api)
            interval = self._poll()
        except (Unreachable, AgentError) as error:
            away = error
        errors = self._drive(list(self.updates.values()))
        if away:
            raise away
        self._outbox.send(self._api)
        return interval or self._config.poll_seconds, errors

    def _enrol(self) -> None:
        """Use the device's own token, or get one. A token goes only to the server that gave it."""
        if self._enrolled:
            return
        identity = load_identity(self._identity)
        if identity is None or identity.server != self._config.server:
            identity = self._ask_to_be_known()
            persist_identity(self._identity, identity)
            self._outbox.note_told(self._inventory())
        self._api.use_token(identity.token)
        self._enrolled = True

    def _ask_to_be_known(self) -> Identity:
        token = self._config.enrolment_token
        if token is None:
            raise AgentError("not_enrolled", f"no token for {self._config.server} is held here")
        request = Enrolment(
            name=self._config.name,
            token=token.get_secret_value(),
            models={name: _holding(update) for name, update in self.updates.items()},
            capabilities=capabilities(self._config.state_dir),
            attributes=self._attributes,
        )
        given = self._api.enrol(request)
        _log.info("enrolled as device %s", given.device_id)
        return Identity(server=self._config.server, device_id=given.device_id, token=given.token)

    def _poll(self) -> float | None:
        """Ask what is wanted; what has not changed is considered anew, it may have had to wait."""
        answer = self._api.desired(self._etag)
        if answer.desired is not None:
            self._wanted = {model.model: model for model in answer.desired.models}
            self._etag = answer.etag
            for name in sorted(self._wanted.keys() - self.updates.keys()):
                _log.warning("%s: offered, but not in this device's configuration", name)
        for name, update in self.updates.items():
            update.consider(self._wanted.get(name))
        if answer.desired is not None and answer.desired.report:
            self._tell()
        return answer.interval

    def _inventory(self) -> str:
        return told(self._attributes, self._config.state_dir)

    def _tell_changes(self) -> None:
        """Report attributes and capabilities that the server has not heard of: a new agent, say."""
        inventory = self._inventory()
        if self._outbox.told != inventory:
            self._tell()
            self._outbox.note_told(inventory)

    def _tell(self) -> None:
        """Report what is held of each model, and all else that the server should know."""
        for name, update in self.updates.items():
            held = _holding(update)
            report = Report(
                counter=1,  # the outbox gives the real one
                model=name,
                result="committed",
                state="idle",
                weights_digest=held.current,
                slots=held.slots,
                capabilities=capabilities(self._config.state_dir),
                attributes=self._attributes,
            )
            self._outbox.add(report)

    def _drive(self, updates: list[Update]) -> list[WeftError]:
        """Drive each; what fails for one model does not hold back another."""
        errors = (_error_of(update) for update in updates)
        return [error for error in errors if error is not None]


def _error_of(update: Update) -> WeftError | None:
    """Drive one update; whatever goes wrong is logged and returned."""
    try:
        update.drive()
    except WeftError as error:
        _log.error("%s: %s", update.model, error)
        return error
    except Exception as error:
        _log.exception("%s: unexpected", update.model)
        return AgentError("unexpected", f"{update.model}: {type(error).__name__}: {error}")
    return None


def _holding(update: Update) -> HeldModel:
    slots = [held.digest for held in update.journal.slots.values()]
    return HeldModel(slots=slots, current=update.digest)


@contextlib.contextmanager
def running(config: Config, wait: Callable[[float], None]) -> Iterator[Agent]:
    """An agent on its state directory, which it alone works in. Raises AgentError `busy`."""
    files.make_directory(config.state_dir)
    with contextlib.ExitStack() as stack:
        stack.enter_context(files.lock(config.state_dir / "lock"))
        files.clean(config.state_dir)
        link = Link(config, wait)
        api = DeviceApi(config, f"weft-agent/{__version__}", link.count)
        stack.callback(api.close)
        outbox = Outbox(config.state_dir / "reports.json")
        yield Agent(config, Device(config, api, outbox, link, _fault_of_this_machine()))


def run_for_ever(agent: Agent, wait: Callable[[float], None]) -> None:
    """Rounds without end; only Stopped, raised by a signal, leaves."""
    agent.recover()
    backoff = Backoff()
    while True:
        started = time.monotonic()
        pause = _pause_after_round(agent, backoff)
        _log.debug("a round of %.3f s; next in %.1f s", time.monotonic() - started, pause)
        wait(pause)


def _pause_after_round(agent: Agent, backoff: Backoff) -> float:
    try:
        interval, errors = agent.round()
    except ServerAway as error:
        _log.warning("%s", error)
        return backoff.next(error.retry_after)
    except WeftError as error:
        _log.error("%s", error)
        return backoff.next()
    if any(isinstance(error, (Unreachable, DownloadError)) for error in errors):
        return backoff.next()
    backoff.reset()
    return interval


def _fault_of_this_machine() -> BadResult | None:
    """Why this machine cannot decode; such a device still polls and says so."""
    try:
        known_answer()
    except BadResult as error:
        _log.error("%s", error)
        return error
    return None
