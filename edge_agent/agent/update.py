"""When the steps of one model are taken, and what becomes of an update that an error has stopped.

Each model has pauses of its own, so one that fails does not hold back another, nor the polls.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from edge_agent.agent.flow import TABLE, Steps
from edge_agent.agent.model import Device
from edge_agent.agent.offers import goes_on, is_news
from edge_agent.agent.outcomes import BEFORE_SWAPPING, COUNTED, ENDING, outcome_of
from edge_agent.api import Backoff
from edge_agent.config import ModelConfig
from edge_agent.errors import AgentError, HealthError, RuntimeAway, ServerAway, WrongWeights
from edge_agent.journal import Target
from shared.errors import BadWeights, NoSpace, WeftError
from shared.wire import DesiredModel, Fault, State

#: The longest pause after errors of a link; what is put off for no known time is tried again once
#: in an hour, as each try wears the flash memory.
LONGEST_PAUSE_SECONDS, LONGEST_DEFERRAL_SECONDS = 600.0, 3600.0
#: So long may a program take to start, before its weights are taken back; the longest pause until
#: it is asked again.
PATIENCE_SECONDS, LONGEST_ABSENCE_SECONDS = 300.0, 30.0
_log = logging.getLogger(__name__)


class Update(Steps):
    """The updates of one model, one after the other.

    `not_before`: when there is something to do next, by the device's clock. `waits`: for something
    that trying again does not bring. `fruitless`: goes in a row that an error ended without any
    progress.
    """

    def __init__(self, model: str, config: ModelConfig, device: Device) -> None:
        super().__init__(model, config, device)
        self.not_before, self.waits, self.fruitless = device.clock.now(), False, 0
        self._hold: str | None = None
        self._backoff = Backoff(longest=LONGEST_PAUSE_SECONDS)
        self._deferrals = Backoff(first=60.0, longest=LONGEST_DEFERRAL_SECONDS)
        self._absences = Backoff(longest=LONGEST_ABSENCE_SECONDS)
        self._is_counted, self._attempts_before, self._arrived = False, 0, 0
        self._absent_since: float | None = None

    def consider(self, desired: DesiredModel | None) -> WeftError | None:
        """Take note of what the server wants; it may replace what is under way before the swap.

        Returns what prevents it.
        """
        try:
            self._consider(desired)
        except WeftError as error:  # of the disk; the next poll considers it again
            return self._pause(error)
        return None

    def _consider(self, desired: DesiredModel | None) -> None:
        self._note_hold(desired)
        target = self.journal.target
        if self.journal.state in BEFORE_SWAPPING and target and not goes_on(target, desired):
            _log.info("%s: version %s is no longer wanted", self.model, target.version)
            self.enter("superseded" if desired else "aborted")
            self.drop()
        if desired and self.journal.state == "idle" and is_news(desired, self.journal, self.digest):
            _log.info("%s: version %d is offered", self.model, desired.version)
            self.take_on(Target.of(desired))

    def take_on(self, target: Target) -> None:
        """Begin with an update; nothing may be under way."""
        self.begin(target)
        self._backoff.reset()
        self._deferrals.reset()
        self._is_counted, self._attempts_before, self._arrived, self.fruitless = True, 0, 0, 0
        self._hurry()

    @property
    def hold(self) -> str | None:
        """Why the server lets the update wait."""
        return self._hold

    def recheck(self) -> None:
        """Look after `current`, and have an update look again that knows what has put it off."""
        try:
            self.mend_link()
        except WeftError as error:  # of the disk; the next poll tries again
            _log.error("%s: %s", self.model, error)
        if self.journal.state == "deferred" and self.obstacle:
            self._hurry()

    def look_after_releases(self) -> None:
        """Renew metadata that have expired; an update that is under way does so where it must."""
        if self.journal.state == "idle":
            self.releases.look_after()

    def go(self) -> WeftError | None:
        """Bring the update as far as it goes now; returns what ended or stopped it, if anything."""
        self._hurry()
        self._arrived = self._received()
        try:
            error = self._advance()
        except WeftError as failure:  # of the disk, while something was to be noted
            error = self._pause(failure)
        if self.journal.state == "idle":
            self._wait()
        return error

    def patiently(self, tell: Callable[[], None]) -> None:
        """As in `Steps`; a program that is there but stays silent does not hold up the rest."""
        try:
            tell()
        except RuntimeAway as error:
            if self.fruitless + 1 < self.device.config.max_attempts:
                raise
            _log.error("%s: %s", self.model, error)

    def _advance(self) -> WeftError | None:
        ended = None
        while step := TABLE[self.journal.state].step:
            state = self.journal.state
            if self._is_held():
                self._wait()
                break
            if state != "deferred":
                self.obstacle = None
            if error := self._take(step):
                if not self._moves(error):
                    return error
                ended = error
            if self.journal.state == state:
                break
            self._note_progress()
        return ended

    def _take(self, step: Callable[[Steps], None]) -> WeftError | None:
        """Take a step; returns what stopped it."""
        try:
            self._count_attempt()
            step(self)
        except WeftError as error:
            return error
        except OSError as error:
            return NoSpace("unusable", f"{error.filename}: {error.strerror or error}")
        except Exception as error:
            _log.exception("%s: unexpected", self.model)
            return AgentError("unexpected", f"{type(error).__name__}: {error}")
        return None

    def _moves(self, error: WeftError) -> bool:
        """Do what follows from an error; whether the update has left its state by it."""
        state, outcome = self.journal.state, outcome_of(error, self.journal.state)
        fault = Fault(code=error.code, message=error.message[:2000])
        if outcome == "damaged":
            return self._note_damage(error, fault)
        if outcome == "deferred":
            self._defer(error, fault)
        elif outcome == "away":
            if self._attempts_before < self.journal.attempts:  # it was not the update's fault
                self.enter(state, attempts=self._attempts_before)
            self._pause(error)
        elif outcome == "absent" and self._is_patient():
            self.enter(state, error=fault)
            self._pause(error)
            self.not_before = self.device.clock.now() + self._absences.next()
        elif outcome == "absent":
            self._end("rolled_back", error, fault)
            return True
        elif outcome == "again":
            self._is_counted = False
            if state not in ENDING:  # how it ended is noted already
                self.enter(state, error=fault)
            self._pause(error)
        else:
            self._end(outcome, error, fault)
            return True
        return False

    def _note_damage(self, error: WeftError, fault: Fault) -> bool:
        """Download it once more, later; not for ever, as a disk that did it may do it each time."""
        damaged = self.journal.damaged + 1
        self.journal = self.journal.model_copy(update={"damaged": damaged})
        if damaged < self.device.config.max_attempts:
            self._defer(error, fault)
            return False
        told = f"packages were damaged on the disk {damaged} times; the last error: {error.message}"
        worn = AgentError("too_many_attempts", told)
        self._end("failed", worn, Fault(code=worn.code, message=worn.message[:2000]))
        return True

    def _is_patient(self) -> bool:
        """Whether a program that is not running may still be about to start."""
        now = self.device.clock.now()
        self._absent_since = self._absent_since or now
        return now - self._absent_since < PATIENCE_SECONDS

    def _count_attempt(self) -> None:
        """Persist that one more attempt begins; bytes that came since the last one start afresh.

        Raises AgentError after too many: a package that crashes the agent must not do so for ever.
        """
        journal = self.journal
        if self._is_counted or journal.state not in COUNTED:
            return
        arrived = self.chain.received
        self._attempts_before = 0 if arrived > journal.received else journal.attempts
        attempts = self._attempts_before + 1
        self.enter(journal.state, attempts=attempts, received=max(arrived, journal.received))
        self._is_counted = True
        if attempts > self.device.config.max_attempts:
            last = f"; the last error: {journal.error.message}" if journal.error else ""
            stuck = f"{attempts - 1} attempts in state {journal.state}{last}"
            raise AgentError("too_many_attempts", stuck)

    def _note_progress(self) -> None:
        self._backoff.reset()
        self._absences.reset()
        self._is_counted, self._attempts_before, self.fruitless = True, 0, 0
        self._arrived, self._absent_since = self._received(), None

    def _pause(self, error: WeftError) -> WeftError:
        """Try again later: at once longer, unless bytes have come meanwhile."""
        if self._received() > self._arrived:
            self._backoff.reset()
            self.fruitless = 0
        else:
            self.fruitless += 1
        wish = error.retry_after if isinstance(error, ServerAway) else None
        self.not_before = self.device.clock.now() + self._backoff.next(wish)
        _log.warning("%s: %s", self.model, error)
        return error

    def _received(self) -> int:
        """Bytes of the packages that are here, as far as the disk says; to judge progress by."""
        try:
            return self.chain.received if self.journal.target else 0
        except NoSpace:
            return 0

    def _hurry(self) -> None:
        """There is something to do now."""
        self.not_before, self.waits = self.device.clock.now(), False

    def _wait(self, seconds: float = math.inf) -> None:
        """Do nothing until then, or until there is news."""
        self.not_before, self.waits = self.device.clock.now() + seconds, True

    def _note_hold(self, desired: DesiredModel | None) -> None:
        hold = desired.held if desired else None
        if desired and hold and hold != self._hold:
            _log.info("%s: version %d is held: %s", self.model, desired.version, hold)
        if self._hold and not hold:
            self._hurry()
        self._hold = hold

    def _is_held(self) -> bool:
        journal = self.journal
        ours = journal.target is not None and journal.target.origin != "server"
        return bool(self._hold) and journal.state in BEFORE_SWAPPING and not ours

    def _defer(self, error: WeftError, fault: Fault) -> None:
        """Wait for better times; the server hears of it once, and nothing is written twice."""
        before = self.journal.error
        if self.journal.state != "deferred":
            _log.warning("%s: %s", self.model, error)
            self.journal = self.journal.model_copy(update={"error": fault})
            if before is None or before.code != fault.code:
                self.report("failed_no_change", "deferred")
            self.enter("deferred", attempts=0)
        self._is_counted = False
        known = getattr(error, "retry_after", None) or math.inf
        self._wait(known if self.obstacle else self._deferrals.next())

    def _end(self, state: State, error: WeftError, fault: Fault) -> None:
        """Enter the state in which the update ends because of `error`."""
        _log.error("%s: %s", self.model, error)
        if state == "rolled_back":
            judged = "failed" if isinstance(error, HealthError) else "unverified"
            self.enter(state, error=fault, health=judged)
        else:
            wrong = error.tensor_digests if isinstance(error, WrongWeights) else None
            is_damaged = error.code == "package.wrong_base" or isinstance(error, BadWeights)
            slots = self.surveyed() if is_damaged else self.journal.slots
            self.enter(state, error=fault, tensor_digests=wrong, slots=slots)
