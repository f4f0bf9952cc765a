"""One model on this device: its journal, its slots, and what can be said of them.

`edge_agent.agent.flow` moves it from state to state; here is what the steps stand on.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_agent import files
from edge_agent.agent.chain import Chain
from edge_agent.agent.clock import Clock
from edge_agent.agent.outcomes import BEFORE_SWAPPING
from edge_agent.agent.releases import Releases
from edge_agent.api import DeviceApi
from edge_agent.config import Config, ModelConfig
from edge_agent.errors import AgentError
from edge_agent.heavy import Heavy
from edge_agent.inventory import capabilities
from edge_agent.journal import Ended, Held, Journal, SlotName, Target, load_journal, persist_journal
from edge_agent.link import Link
from edge_agent.report import Outbox
from edge_agent.runtimes import Runtime, Weights, open_runtime
from edge_agent.slots import STORAGES, Directory, Storage
from shared.errors import NoSpace
from shared.wire import Capabilities, Report, Result, State

#: What the journal, the reports and a file system's own needs may take beside the weights.
MARGIN_BYTES = 1 << 20
#: What clocks say of two starts of the agent is believed up to this: a device may begin in 1970.
LONGEST_UPDATE_SECONDS = 31 * 86400.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Device:
    """What the updates of all models share. `pin`: SHA-256 of the root that is believed first."""

    config: Config
    api: DeviceApi
    outbox: Outbox
    clock: Clock
    link: Link
    heavy: Heavy
    beat: Callable[[], None]
    pin: str | None = None

    def capabilities(self) -> Capabilities:
        """What this device can decode and hold; takes a moment the first time."""
        models = self.config.models
        chain = min(STORAGES[model.storage].max_chain for model in models.values())
        in_place = (name for name, model in models.items() if model.storage == "inplace")
        return capabilities(self.heavy.about(), self.config.state_dir, chain, in_place)


class Installation:
    """What is persisted of one model, and the only ways in which it changes."""

    def __init__(self, model: str, config: ModelConfig, device: Device) -> None:
        self.model, self.config, self.device = model, config, device
        self._directory = device.config.state_dir / "models" / model
        self._on_disk: Journal | None = None
        self._since, self._began_here = device.clock.now(), False
        self.ended: Counter[State] = Counter()
        found = load_journal(Directory(self._directory).journal)
        self.slots = self._storage(found)
        self.slots.prepare()
        self.releases = Releases(model, device)
        self.journal = _planned_anew(found) if found else self._first_journal()
        if self.journal.state == "idle":  # the one before was killed, or has lost its journal
            self.slots.tidy()
        self.mend_link()
        self.runtime: Runtime = open_runtime(model, config, device.beat)

    def _storage(self, journal: Journal | None) -> Storage:
        """As configured; an update that is under way ends in the mode that it began in."""
        is_under_way = journal is not None and journal.state != "idle"
        mode = journal.storage if journal and is_under_way else self.config.storage
        return STORAGES[mode](self._directory, self.device.heavy)

    def _first_journal(self) -> Journal:
        """The journal of a device that has none: what the slots hold is found by reading them."""
        self.slots.recover()
        if self.config.initial:
            self.slots.adopt(self.config.initial)
        self._persist(Journal(slots=self.slots.survey(), in_use=self.slots.current()))
        return self.journal

    def mend_link(self) -> None:
        """Have `current` lead to what is in use where somebody else has changed it.

        Only while the agent itself is not about to change it. Raises NoSpace.
        """
        journal, found = self.journal, self.slots.current()
        if journal.state not in BEFORE_SWAPPING | {"idle"} or found == journal.in_use:
            return
        if journal.in_use is None:  # an agent before this one has not noted it
            self._persist(journal.model_copy(update={"in_use": found}))
        elif journal.in_use in journal.slots:
            self.point_to(journal.in_use)

    def point_to(self, name: SlotName) -> None:
        """Put `current` right, which somebody else has changed."""
        _log.error(
            "%s: %s did not lead to slot %s; it does again", self.model, self.slots.link, name
        )
        self.slots.point_to(name)

    @property
    def digest(self) -> str | None:
        """The weights digest of the slot in use."""
        held = self.held
        return held.digest if held else None

    @property
    def held(self) -> Held | None:
        """What is in use."""
        current = self.slots.current()
        return self.journal.slots.get(current) if current else None

    @property
    def target(self) -> Target:
        """What is being installed; there is one in every state but `idle`."""
        assert self.journal.target is not None
        return self.journal.target

    @property
    def chain(self) -> Chain:
        """The packages of the target; there are some from `downloading` to `reconstituting`."""
        return Chain(self.slots, self.target, self.device.heavy)

    @property
    def fill(self) -> SlotName:
        """The slot that the target goes to; there is one once the update is planned."""
        assert self.journal.fill is not None
        return self.journal.fill

    def enter(self, state: State, **changes: Any) -> None:
        """Persist the state, before anything that it stands for is done."""
        if state != self.journal.state:
            _log.debug("%s: %s -> %s", self.model, self.journal.state, state)
            changes.setdefault("attempts", 1)  # the first at the new state begins
        self._persist(self.journal.model_copy(update={"state": state, **changes}))

    def weights(self, *, ready: bool = True) -> Weights:
        """The target, for the program that is to use it."""
        target = self.target
        return Weights(self.slots.path(self.fill), target.weights_digest, target.version, ready)

    def begin(self, target: Target) -> None:
        """Take on an update, after the one that was finished last."""
        self.slots = self._storage(None)
        self._since, self._began_here = self.device.clock.now(), True
        fresh = Journal(
            slots=self.journal.slots,
            settled=self.journal.settled,
            last=self.journal.last,
            in_use=self.journal.in_use,
            left=self.journal.left,
            target=target,
            storage=self.slots.mode,
            started_at=time.time(),
        )
        self.journal = fresh
        self.enter("offered")

    def rest(self, *, settled: bool = True) -> None:
        """Remove what is no longer needed and be idle; what the server offered may be settled."""
        self.slots.tidy()
        journal = self.journal
        is_done = settled and self.target.origin == "server"
        done = self.target if is_done else journal.settled
        version = journal.target.version if journal.target else None
        last = Ended(state=journal.state, version=version, error=journal.error)
        self._persist(
            Journal(
                slots=journal.slots,
                settled=done,
                last=last,
                left=journal.left,
                in_use=self._left_in_use(),
            )
        )

    def _left_in_use(self) -> SlotName | None:
        """What the update that has just ended leaves in use."""
        if self.journal.state == "committed":
            return self.fill
        is_untouched = self.journal.state != "rolled_back"
        return self.journal.in_use if is_untouched else self.slots.current()

    def _persist(self, journal: Journal) -> None:
        """Replace the journal, unless nothing changes: flash memory wears."""
        if journal != self._on_disk:
            persist_journal(self.slots.journal, journal)
        self.journal = self._on_disk = journal

    def report(self, result: Result, state: State | None = None, about: Held | None = None) -> None:
        """Persist a report on how the update ended; `state` is the journal's by default.

        `about`: the weights that it is about, where those are not the target.
        """
        journal, named = self.journal, about or self.target
        report = Report(
            counter=1,  # the outbox gives the real one
            model=self.model,
            assignment=named.assignment,
            result=result,
            state=state or journal.state,
            weights_digest=self.digest,
            slots=[held.digest for held in journal.slots.values()],
            version=named.version,
            error=journal.error,
            tensor_digests=journal.tensor_digests,
            seconds=round(self._seconds(), 3),
            health=journal.health,
        )
        self.device.outbox.add(report)
        self.ended[report.state] += 1

    def _seconds(self) -> float:
        """Since the offer; by the clock on the wall only across a start, and if that makes sense.

        That clock may be set meanwhile. What is known then is the time since the agent's start.
        """
        here = self.device.clock.now() - self._since
        passed = time.time() - self.journal.started_at
        makes_sense = here <= passed <= LONGEST_UPDATE_SECONDS
        return passed if makes_sense and not self._began_here else here

    def still_holds(self, name: SlotName) -> bool:
        """Whether a slot holds what the journal says; if not, it is struck from the journal."""
        held = self.journal.slots.get(name)
        if held and self.slots.digest(name) == held.digest:
            return True
        self.enter(self.journal.state, slots=without(self.journal.slots, name))
        return False

    def surveyed(self) -> dict[SlotName, Held]:
        """What the slots hold, by reading them, and what is known of those that are unchanged."""
        known = self.journal.slots
        return {
            name: known[name] if name in known and known[name].digest == held.digest else held
            for name, held in self.slots.survey().items()
        }

    def base(self) -> SlotName | None:
        """The slot that the first package starts from; None if it needs none."""
        wanted = self.target.packages[0].base_digest
        if wanted is None:
            return None
        for name, held in self.journal.slots.items():
            if held.digest == wanted:
                return name
        raise AgentError("no_base", f"no slot holds {wanted}")

    def expected_bytes(self, base: SlotName | None) -> list[int]:
        """A guess at what the packages give, until they are here."""
        current = base or self.slots.current()
        offers = self.target.packages
        return [self.slots.size(current) if current else offer.size for offer in offers]

    def check_room(self, results: list[int], fill: SlotName, base: SlotName | None) -> None:
        """Raise NoSpace unless the rest of the packages and what they give fit on the disk."""
        needed = self.chain.missing + self.slots.needed(results, fill, base) + MARGIN_BYTES
        free = files.free_bytes(self.slots.directory)
        if needed > free:
            raise NoSpace("no_space", f"the update needs {needed} bytes, {free} are free")


def _planned_anew(journal: Journal) -> Journal:
    """As it is, unless what is under way was begun by an agent that verified nothing."""
    target, is_planned = journal.target, journal.state in BEFORE_SWAPPING - {"offered", "deferred"}
    if is_planned and target and not target.verified:
        return journal.model_copy(update={"state": "offered"})
    return journal


def without(slots: Mapping[SlotName, Held], name: SlotName) -> dict[SlotName, Held]:
    """The slots but one."""
    return {key: held for key, held in slots.items() if key != name}
