"""The life of an update on a device: one table of states, one step each.

`STEPS` is the flow. A step does what its state is named for and enters the next state; entering is
persisted before anything of the next state is done, so a step may run again after a crash and is
written to find its work done already. The digest of the weights, not the journal, decides what a
slot holds wherever the two could disagree.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from edge_agent import files, health
from edge_agent.agent.model import Device, Installation, without
from edge_agent.config import ModelConfig
from edge_agent.download import SLICE_SECONDS
from edge_agent.errors import (
    AgentError,
    DownloadError,
    HealthError,
    LinkHeld,
    ServerAway,
    TrustError,
    WrongWeights,
)
from edge_agent.journal import Held, Journal
from edge_agent.slots import other
from shared.errors import NoSpace, Unreachable, WeftError
from shared.wire import DesiredModel, Fault, Result, State

#: In these the device still runs what it ran before, and the server may change its mind.
BEFORE_SWAPPING: frozenset[State] = frozenset(
    {"offered", "downloading", "downloaded", "reconstituting", "staged", "deferred"}
)
_CHANGING: frozenset[State] = frozenset({"swapping", "verifying"})
#: Finished at the start, before the server is asked: what is in use may be changing, or all that
#: is left is to say how it ended.
URGENT: frozenset[State] = _CHANGING | {
    "committed",
    "rolled_back",
    "failed",
    "aborted",
    "superseded",
}
_log = logging.getLogger(__name__)


class Update(Installation):
    """The updates of one model, one after the other."""

    def __init__(self, model: str, config: ModelConfig, device: Device) -> None:
        super().__init__(model, config, device)
        self._held: str | None = None

    def consider(self, desired: DesiredModel | None) -> None:
        """Take note of what the server wants; it may replace what is under way before the swap."""
        held = desired.held if desired else None
        if desired and held and held != self._held:
            _log.info("%s: version %d is held: %s", self.model, desired.version, held)
        self._held = held
        target = self.journal.target
        if self.journal.state in BEFORE_SWAPPING and target and not _goes_on(target, desired):
            _log.info("%s: version %d is no longer wanted", self.model, target.version)
            self.enter("superseded" if desired else "aborted")
            self._drop()
        if desired is None or desired.held or self.journal.state != "idle":
            return
        if _is_settled(desired, self.journal.settled) or (
            desired.weights_digest == self.digest and desired.assignment is None
        ):
            return
        _log.info("%s: version %d is offered", self.model, desired.version)
        fresh = Journal(slots=self.journal.slots, settled=self.journal.settled)
        self.journal = fresh.model_copy(update={"target": desired, "started_at": time.time()})
        self.enter("offered")

    def drive(self) -> None:
        """Bring the update as far as it goes now.

        Raises ServerAway or DownloadError where the link ended it; other errors end the update
        itself, are reported to the server, and raised again.
        """
        state = self.journal.state
        if state == "idle" or (self._held and state in BEFORE_SWAPPING):
            return
        if state == "deferred":
            self.enter("offered")
        ended = self._count_attempt()
        while self.journal.state in STEPS:
            ended = self._step() or ended
        if ended:
            raise ended

    def _step(self) -> WeftError | None:
        """Do the step of the present state; returns the error that ended the update, if one did."""
        state = self.journal.state
        try:
            STEPS[state](self)
        except WeftError as error:
            if _is_away(error):
                self.enter(state, attempts=self.journal.attempts - 1)  # not this update's fault
                raise
            if _worth_another_attempt(error, state):
                self.enter(state, error=_fault(error))
                raise
            self._end(error)
            return error
        return None

    def _count_attempt(self) -> WeftError | None:
        """Persist that one more attempt begins; bytes that came since the last one start afresh.

        After too many, the update ends: a package that crashes the agent must not do so for ever.
        """
        journal = self.journal
        if journal.state not in BEFORE_SWAPPING | _CHANGING:
            return None
        arrived = self.chain.received
        attempts = 1 if arrived > journal.received else journal.attempts + 1
        self.enter(journal.state, attempts=attempts, received=max(arrived, journal.received))
        if attempts <= self.device.config.max_attempts:
            return None
        last = f"; the last error: {journal.error.message}" if journal.error else ""
        stuck = f"{attempts - 1} attempts in state {journal.state}{last}"
        error = AgentError("too_many_attempts", stuck)
        self._end(error)
        return error

    # The steps, in the order of the table.

    def _plan(self) -> None:
        """Find out how to come to the target, and whether there is room for it."""
        target, chain = self.target, self.chain
        current = self.slots.current()
        self.slots.keep_packages(chain.sha256s)
        self.slots.drop_stages()
        if self.device.broken:
            raise self.device.broken
        for name, held in self.journal.slots.items():
            if held.digest == target.weights_digest and self.still_holds(name):
                state: State = "verifying" if name == current else "staged"
                self.enter(state, fill=name, previous=current)
                return
        if not chain:
            raise AgentError("no_such_weights", f"no slot holds {target.weights_digest}")
        chain.check()
        limit = self.device.config.max_package_bytes
        if chain.size > limit:
            raise AgentError("package_too_large", f"{chain.size} bytes, the limit is {limit}")
        fill = other(current)
        base = self.base()
        self.check_room(self.expected_bytes(base), fill, base)
        self.enter("downloading", fill=fill, previous=current, applied=0)

    def _download(self) -> None:
        link = self.device.link
        while not self.chain.obtain(self.device.api, link, link.clock() + SLICE_SECONDS):
            pass
        self.enter("downloaded", received=self.chain.size)

    def _admit(self) -> None:
        """Look at the packages before a slot is given up for them."""
        base = self.base()
        sizes = self.chain.result_sizes(self.slots.path(base) if base else None)
        self.check_room(sizes, self.fill, base)
        self.enter("reconstituting")

    def _reconstitute(self) -> None:
        target, fill = self.target, self.fill
        made = Held(digest=target.weights_digest, version=target.version)
        if self.slots.digest(fill) != target.weights_digest:
            base = self.base()
            if base != fill:
                self.enter("reconstituting", slots=without(self.journal.slots, fill))
                files.remove(self.slots.path(fill))
            self._apply(self.slots.path(base) if base else None)
        self.enter("staged", slots={**self.journal.slots, fill: made})

    def _apply(self, base: Path | None) -> None:
        """Apply the packages one after the other; after a restart, those that are left."""
        for number in range(self.chain.applied(self.journal.applied), len(self.chain)):
            self.chain.apply(number, base, self.slots.path(self.fill))
            if number < len(self.chain) - 1:
                done = {"applied": number + 1, "attempts": min(self.journal.attempts, 1)}
                self.enter("reconstituting", **done)
                self.slots.drop_stages(but=number)

    def _stage(self) -> None:
        self.slots.drop_stages()
        self.enter("swapping")

    def _swap(self) -> None:
        self.slots.switch(self.fill)
        self.enter("verifying")

    def _verify(self) -> None:
        """Read back what is in use now, and have it judged."""
        target, fill = self.target, self.fill
        if self.slots.digest(fill) != target.weights_digest:
            self.enter("verifying", slots=without(self.journal.slots, fill))
            raise AgentError("slot_damaged", f"slot {fill} does not hold {target.weights_digest}")
        judged = health.check(self.model, self.config, self.slots.link, target.weights_digest)
        named = Held(digest=target.weights_digest, version=target.version)
        slots = {**self.journal.slots, fill: named}
        self.enter("committed", health=judged, error=None, slots=slots)

    def _commit(self) -> None:
        _log.info("%s: version %d is in use", self.model, self.target.version)
        self.report("committed")
        self.rest(self.target)

    def _roll_back(self) -> None:
        """Go back to what was in use before; nothing, if there was nothing."""
        previous = self.journal.previous
        result: Result = "failed_rolled_back"
        if previous == self.journal.fill:
            result = "failed_no_change"
        elif previous is None:
            files.remove(self.slots.link)
        else:
            self.slots.switch(previous)
        if previous and not self.still_holds(previous):
            result = "failed_unrecovered"
        self.report(result)
        self.rest(self.target)

    def _fail(self) -> None:
        self.report("failed_no_change")
        self.rest(self.target)

    def _drop(self) -> None:
        self.rest(self.journal.settled)

    def _end(self, error: WeftError) -> None:
        """Enter the state in which the update ends because of `error`."""
        state, fault = self.journal.state, _fault(error)
        if error.code == "package.wrong_base":  # the slot is not what the journal says
            self.enter(state, slots=self.slots.survey())
        if state in ("swapping", "verifying"):
            judged = "failed" if isinstance(error, HealthError) else "unverified"
            self.enter("rolled_back", error=fault, health=judged)
        elif isinstance(error, (NoSpace, LinkHeld)):
            self._defer(fault)
        else:
            wrong = error.tensor_digests if isinstance(error, WrongWeights) else None
            self.enter("failed", error=fault, tensor_digests=wrong)

    def _defer(self, fault: Fault) -> None:
        """Wait for better times; the server hears of it once."""
        before = self.journal.error
        self.journal = self.journal.model_copy(update={"error": fault})
        if before is None or before.code != fault.code:
            self.report("failed_no_change", "deferred")
        self.enter("deferred", attempts=0)


#: The flow. States that are not here are ones to rest in.
STEPS: Final[Mapping[State, Callable[[Update], None]]] = MappingProxyType(
    {
        "offered": Update._plan,  # -> downloading | staged | verifying
        "downloading": Update._download,  # -> downloaded
        "downloaded": Update._admit,  # -> reconstituting
        "reconstituting": Update._reconstitute,  # -> staged
        "staged": Update._stage,  # -> swapping
        "swapping": Update._swap,  # -> verifying
        "verifying": Update._verify,  # -> committed | rolled_back
        "committed": Update._commit,  # -> idle
        "rolled_back": Update._roll_back,  # -> idle
        "failed": Update._fail,  # -> idle
        "aborted": Update._drop,  # -> idle
        "superseded": Update._drop,  # -> idle
    }
)


def _is_settled(desired: DesiredModel, settled: DesiredModel | None) -> bool:
    """Whether this very attempt has been finished, for good or bad."""
    if settled is None:
        return False
    return _identity(desired) == _identity(settled) and desired.attempt == settled.attempt


def _goes_on(target: DesiredModel, desired: DesiredModel | None) -> bool:
    """Whether what is under way is still wanted; one that is held may come without its package.

    Another attempt of the same is what is under way: a download need not begin again.
    """
    if desired is None:
        return False
    if desired.held:
        return _identity(desired)[:2] == _identity(target)[:2]
    return _identity(desired) == _identity(target)


def _identity(wanted: DesiredModel) -> tuple[str, int | None, tuple[str, ...]]:
    """What an update is: where to, for which assignment, and by which packages."""
    packages = tuple(offer.sha256 for offer in wanted.packages)
    return wanted.weights_digest, wanted.assignment, packages


def _is_away(error: WeftError) -> bool:
    """Whether only the link or the server is at fault, which may last for days."""
    return isinstance(error, ServerAway) or error.code == "agent.token_refused"


def _worth_another_attempt(error: WeftError, state: State) -> bool:
    """Whether the same step may succeed later, though nothing about the update changes."""
    if isinstance(error, NoSpace):
        return state in URGENT
    if isinstance(error, TrustError):
        return state == "downloading" and error.code in ("trust.wrong_length", "trust.wrong_hash")
    return isinstance(error, (Unreachable, DownloadError))


def _fault(error: WeftError) -> Fault:
    return Fault(code=error.code, message=error.message[:2000])
