"""One model on this device: its journal, its slots, and what can be said of them.

`edge_agent.agent.flow` moves it from state to state; here is what the steps stand on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_agent import files
from edge_agent.agent.chain import Chain, peak_bytes
from edge_agent.api import DeviceApi
from edge_agent.config import Config, ModelConfig
from edge_agent.errors import AgentError
from edge_agent.inventory import capabilities
from edge_agent.journal import Held, Journal, SlotName, load_journal, persist_journal
from edge_agent.link import Link
from edge_agent.report import Outbox
from edge_agent.slots import Slots
from shared.errors import NoSpace, WeftError
from shared.wire import DesiredModel, Report, Result, State

#: What the journal, the reports and a file system's own needs may take beside the weights.
MARGIN_BYTES = 1 << 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Device:
    """What the updates of all models share."""

    config: Config
    api: DeviceApi
    outbox: Outbox
    link: Link
    broken: WeftError | None  # why this machine cannot decode, if it cannot


class Installation:
    """What is persisted of one model, and the only ways in which it changes."""

    def __init__(self, model: str, config: ModelConfig, device: Device) -> None:
        self.model, self.config, self.device = model, config, device
        self.slots = Slots(device.config.state_dir / "models" / model)
        self.slots.prepare()
        self.journal = load_journal(self.slots.journal) or self._first_journal()

    def _first_journal(self) -> Journal:
        """The journal of a device that has none: what the slots hold is found by reading them."""
        if self.config.initial:
            self.slots.adopt(self.config.initial)
        journal = Journal(slots=self.slots.survey())
        persist_journal(self.slots.journal, journal)
        return journal

    @property
    def digest(self) -> str | None:
        """The weights digest of the slot in use."""
        current = self.slots.current()
        held = self.journal.slots.get(current) if current else None
        return held.digest if held else None

    @property
    def target(self) -> DesiredModel:
        """What is being installed; there is one in every state but `idle`."""
        assert self.journal.target is not None
        return self.journal.target

    @property
    def chain(self) -> Chain:
        """The packages of the target; there are some from `downloading` to `reconstituting`."""
        return Chain(self.slots, self.target)

    @property
    def fill(self) -> SlotName:
        """The slot that the target goes to; there is one once the update is planned."""
        assert self.journal.fill is not None
        return self.journal.fill

    def enter(self, state: State, **changes: Any) -> None:
        """Persist the state, before anything that it stands for is done."""
        if state != self.journal.state:
            _log.debug("%s: %s -> %s", self.model, self.journal.state, state)
            # The attempt under way has come this far: it is the first at the new state.
            changes.setdefault("attempts", min(self.journal.attempts, 1))
        self._persist(self.journal.model_copy(update={"state": state, **changes}))

    def rest(self, settled: DesiredModel | None) -> None:
        """Remove what is no longer needed and be idle."""
        self.slots.keep_packages(())
        self.slots.drop_stages()
        self._persist(Journal(slots=self.journal.slots, settled=settled))

    def _persist(self, journal: Journal) -> None:
        persist_journal(self.slots.journal, journal)
        self.journal = journal

    def report(self, result: Result, state: State | None = None) -> None:
        """Persist a report on how the update ended; `state` is the journal's by default."""
        journal, target = self.journal, self.target
        report = Report(
            counter=1,  # the outbox gives the real one
            model=self.model,
            assignment=target.assignment,
            result=result,
            state=state or journal.state,
            weights_digest=self.digest,
            slots=[held.digest for held in journal.slots.values()],
            version=target.version,
            error=journal.error,
            tensor_digests=journal.tensor_digests,
            seconds=round(max(0.0, time.time() - journal.started_at), 3),
            health=journal.health,
            capabilities=capabilities(self.slots.directory),
        )
        self.device.outbox.add(report)

    def still_holds(self, name: SlotName) -> bool:
        """Whether a slot holds what the journal says; if not, it is struck from the journal."""
        held = self.journal.slots.get(name)
        if held and self.slots.digest(name) == held.digest:
            return True
        self.enter(self.journal.state, slots=without(self.journal.slots, name))
        return False

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
        missing = self.chain.size - self.chain.received
        gained = self.slots.size(fill) if base != fill else 0
        gained += self.slots.stage_bytes()
        free = files.free_bytes(self.slots.directory)
        needed = missing + peak_bytes(results) + MARGIN_BYTES - gained
        if needed > free:
            raise NoSpace("no_space", f"the update needs {needed} bytes, {free} are free")


def without(slots: Mapping[SlotName, Held], name: SlotName) -> dict[SlotName, Held]:
    """The slots but one."""
    return {key: held for key, held in slots.items() if key != name}
