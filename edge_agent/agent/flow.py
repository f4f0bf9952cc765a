"""The life of an update on a device: one table of states, a step for each, and what may follow.

`TABLE` is the flow. A step does what its state is named for and enters the next state; entering is
persisted before anything of the next state is done, so a step may run again after a crash and is
written to find its work done already. A step that leaves the state as it is has to wait for
something. The digest of the weights, not the journal, decides what a slot holds wherever the two
could disagree.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from edge_agent import files
from edge_agent.agent.model import Installation, without
from edge_agent.agent.offers import was_left
from edge_agent.agent.window import seconds_until
from edge_agent.download import SLICE_SECONDS
from edge_agent.errors import AgentError, HealthError, LinkHeld, OutsideWindow
from edge_agent.journal import Held, SlotName
from edge_agent.runtimes import Weights
from edge_agent.trust.released import check
from shared.errors import BadPackage
from shared.wire import Fault, Result, State

_log = logging.getLogger(__name__)


class Steps(Installation):
    """The steps of the table, in its order; `edge_agent.agent.update` says when they are taken."""

    #: The check that has put the update off, if it can be made again without doing anything.
    obstacle: Callable[[], None] | None = None

    def enter(self, state: State, **changes: Any) -> None:
        """As `Installation.enter`; refuses what the table does not allow."""
        before = self.journal.state
        if state not in (before, *TABLE[before].next):
            raise RuntimeError(f"{before} -> {state} is not in the table of states")
        super().enter(state, **changes)

    def plan(self) -> None:
        """Find out whether the target is released, how to come to it, and if there is room."""
        target, chain = self.target, self.chain
        if was_left(target, self.journal):
            raise AgentError("left_by_hand", f"somebody went back from version {target.version}")
        chain.check()
        if not target.verified:
            check(target, self.releases.fetch(), self.held)
            verified = target.model_copy(update={"verified": True})
            self.journal = self.journal.model_copy(update={"target": verified})
        current = self.slots.current()
        self.slots.keep_packages(chain.sha256s)
        self.slots.drop_stages()
        self.slots.drop_undo()
        for name, held in self.journal.slots.items():
            if held.digest == target.weights_digest and self.still_holds(name):
                state: State = "verifying" if name == current else "staged"
                self.enter(state, fill=name, golden=held.golden, **self._in_use())
                return
        if fault := self.device.heavy.about().fault:
            raise fault
        if not chain:
            raise AgentError("no_such_weights", f"no slot holds {target.weights_digest}")
        limit = self.device.config.max_package_bytes
        if chain.size > limit:
            raise AgentError("package_too_large", f"{chain.size} bytes, the limit is {limit}")
        base = self.base()
        fill = self.slots.fill(base)
        self._require(partial(self.check_room, self.expected_bytes(base), fill, base))
        self.enter("downloading", fill=fill, applied=0, **self._in_use())

    def _in_use(self) -> dict[str, Any]:
        """What to go back to; noted as having been in use, delivered weights too."""
        current, held = self.slots.current(), self.held
        if current is None or held is None:
            return {"previous": current, "before": None}
        used = held.model_copy(update={"used": True})
        slots = {**self.journal.slots, current: used}
        return {"previous": current, "before": used, "slots": slots}

    def download(self) -> None:
        """Fetch what is missing of the packages, for as long as a slice lasts."""
        until = self.device.clock.now() + SLICE_SECONDS
        try:
            is_here = self.chain.obtain(self.device.api, self.device.link, until)
        except LinkHeld:
            self.obstacle = partial(self.device.link.check, self.chain.missing)
            raise
        if is_here:
            self.enter("downloaded", received=self.chain.size)

    def admit(self) -> None:
        """Look at the packages before a slot is given up for them."""
        base = self.base()
        said = self.chain.inspect(self.slots.path(base) if base else None)
        self._require(partial(self.check_room, said.sizes, self.fill, base))
        self.enter("reconstituting", golden=said.golden)

    def reconstitute(self) -> None:
        """Make the new weights, or what turns the old ones into them; nothing in use is touched."""
        journal, target, fill = self.journal, self.target, self.fill
        if self.slots.overwrites(journal):
            self._apply(self._base_path())
            self.enter("staged")
            return
        if self.slots.digest(fill) != target.weights_digest:
            base = self.base()
            if base != fill:
                self._check_base(base)
                self.enter("reconstituting", slots=without(journal.slots, fill))
                files.remove(self.slots.path(fill))
            self._apply(self._base_path())
        self.enter("staged", slots={**self.journal.slots, fill: self._made(used=False)})

    def _check_base(self, base: SlotName | None) -> None:
        """Raise BadPackage before good weights are given up for what cannot be made."""
        slots = self.journal.slots
        if base and self.fill in slots and self.slots.digest(base) != slots[base].digest:
            raise BadPackage("wrong_base", f"slot {base} is not what the package starts from")

    def _apply(self, base: Path | None) -> None:
        """Apply the packages one after the other; after a restart, those that are left."""
        for number in range(self.chain.applied(self.journal.applied), len(self.chain)):
            self.chain.apply(number, base, self.journal)
            if number < len(self.chain) - 1:
                self.enter("reconstituting", applied=number + 1, attempts=1)
                self.slots.drop_stages(but=number)

    def stage(self) -> None:
        """Hold the new weights ready, until they may be used and the program is ready too."""
        self.slots.drop_stages()
        self._require(self._check_window)
        overwrites = self.slots.overwrites(self.journal)
        self._require(partial(self.runtime.prepare, self.weights(ready=not overwrites)))
        slots = self.journal.slots
        self.enter("swapping", slots=without(slots, self.fill) if overwrites else slots)

    def _check_window(self) -> None:
        window = self.config.install_window
        seconds = seconds_until(window, self.device.clock.local()) if window else 0.0
        if seconds and self.target.origin == "server":
            raise OutsideWindow(f"new weights may be used {window}", seconds)

    def swap(self) -> None:
        """Put them into use."""
        self.slots.switch(self.journal)
        self.runtime.swap(self.weights())
        self.enter("verifying")

    def verify(self) -> None:
        """Read back what is in use now, and have it judged where it is used."""
        target, fill = self.target, self.fill
        if self.slots.digest(fill) != target.weights_digest:
            self.enter("verifying", slots=without(self.journal.slots, fill))
            raise AgentError("slot_damaged", f"slot {fill} does not hold {target.weights_digest}")
        if self.slots.current() != fill:
            self.point_to(fill)
        verdict = self.runtime.verify(self.weights(), self.journal.golden)
        if verdict.digest not in (None, target.weights_digest):
            raise HealthError("wrong_weights", f"the program holds {verdict.digest}")
        slots = {**self.journal.slots, fill: self._made(used=True)}
        self.enter("committed", health=verdict.health, error=None, slots=slots)

    def commit(self) -> None:
        """Let the program keep them, and say so."""
        self.patiently(partial(self.runtime.confirm, self.weights()))
        _log.info("%s: version %s is in use", self.model, self.target.version)
        if not self.slots.keeps_previous:
            self.enter("committed", slots={self.fill: self._made(used=True)})
        self.slots.keep(self.journal)
        if self.target.origin == "hand":
            self._say_what_was_left()
        else:
            self.enter("committed", left=None)
            self.report("committed")
        self.rest()

    def _say_what_was_left(self) -> None:
        """Report that the weights which were in use are not any more; they are not to come back."""
        left, previous = self.journal.before, self.journal.previous
        if left is None or previous is None:  # they were damaged
            self.report("committed")
            return
        slots = dict(self.journal.slots)
        if previous in slots:
            slots[previous] = left.model_copy(update={"used": False})
        told = f"somebody went back to version {self.target.version}"
        self.enter(
            "committed",
            left=left,
            slots=slots,
            error=Fault(code="agent.rolled_back_by_hand", message=told),
        )
        self.report("failed_rolled_back", "rolled_back", left)

    def roll_back(self) -> None:
        """Go back to what was in use before; nothing, if there was nothing."""
        before, previous = self.journal.before, self.journal.previous
        result: Result = "failed_rolled_back"
        if before and before.digest == self.target.weights_digest:  # it was only checked again
            result = "failed_no_change"
            is_whole = self.still_holds(self.fill)
        else:
            is_whole = self.slots.go_back(self.journal)
            if previous:
                slots = without(self.journal.slots, previous)
                found = {previous: before} if before and is_whole else {}
                self.enter("rolled_back", slots={**slots, **found})
            self.patiently(self._revert)
            if before and is_whole:
                _log.info("%s: version %s is in use again", self.model, before.version or "unnamed")
        self.report(result if is_whole else "failed_unrecovered")
        self.rest()

    def _revert(self) -> None:
        """Have the program go back as well."""
        before, previous = self.journal.before, self.journal.previous
        if before is None or previous is None:
            self.runtime.revert(None)
            return
        old = Weights(self.slots.path(previous), before.digest, before.version)
        verdict = self.runtime.revert(old)
        if verdict.digest not in (None, before.digest):
            _log.error("%s: the program holds %s now", self.model, verdict.digest)

    def fail(self) -> None:
        """Say so; the weights in use were never touched."""
        self.report("failed_no_change")
        self.rest()

    def look_again(self) -> None:
        """Go on, unless what has put the update off is still there."""
        if self.obstacle:
            self.obstacle()
        self.enter("offered")

    def drop(self) -> None:
        """Forget it."""
        self.rest(settled=False)

    def patiently(self, tell: Callable[[], None]) -> None:
        """Tell the program something that may be told once more later."""
        tell()

    def _require(self, check: Callable[[], None]) -> None:
        """Make a check that may be made again, by itself, where it puts the update off."""
        self.obstacle = check
        check()
        self.obstacle = None

    def _base_path(self) -> Path | None:
        base = self.base()
        return self.slots.path(base) if base else None

    def _made(self, *, used: bool) -> Held:
        """The target, as what a slot holds."""
        target = self.target
        return Held(
            digest=target.weights_digest,
            version=target.version,
            assignment=target.assignment,
            used=used,
            golden=self.journal.golden,
        )


class Row(NamedTuple):
    """What is done in a state, and the states that may follow."""

    step: Callable[[Steps], None] | None
    next: tuple[State, ...]


#: An update may end in these from any state before `swapping`: it cannot be done, not now, or the
#: server has changed its mind.
_OUT: Final[tuple[State, ...]] = ("failed", "deferred", "aborted", "superseded")

#: The flow.
TABLE: Final[Mapping[State, Row]] = MappingProxyType(
    {
        "idle": Row(None, ("offered",)),
        "offered": Row(Steps.plan, ("downloading", "staged", "verifying", *_OUT)),
        "downloading": Row(Steps.download, ("downloaded", *_OUT)),
        "downloaded": Row(Steps.admit, ("reconstituting", *_OUT)),
        "reconstituting": Row(Steps.reconstitute, ("staged", *_OUT)),
        "staged": Row(Steps.stage, ("swapping", *_OUT)),
        "swapping": Row(Steps.swap, ("verifying", "rolled_back")),
        "verifying": Row(Steps.verify, ("committed", "rolled_back")),
        "committed": Row(Steps.commit, ("idle",)),
        "rolled_back": Row(Steps.roll_back, ("idle",)),
        "failed": Row(Steps.fail, ("idle",)),
        "deferred": Row(Steps.look_again, ("offered", "failed", "aborted", "superseded")),
        "aborted": Row(Steps.drop, ("idle",)),
        "superseded": Row(Steps.drop, ("idle",)),
    }
)
