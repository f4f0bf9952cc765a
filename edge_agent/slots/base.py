"""The contract of a storage mode: where new weights are made, and how they come into use.

The flow (`edge_agent.agent.flow`) asks, in the states that are named; after a crash it asks again,
so each must find its work done already. `journal` says what is being done.

    overwrites(journal)   Whether the target takes the place of the weights in use, in their file.
                          If so, it is made as an undo file, and the slot holds neither the old nor
                          the new weights for certain while it is `swapping`.
    fill(base)            `offered`: the slot that new weights go to, made from what `base` holds
    needed(...)           `offered`, `downloaded`: bytes that the disk must have free for them
    make(...)             `reconstituting`: apply the last package
    switch(journal)       `swapping`: the new weights are in use, `current` leads to them
    go_back(journal)      `rolled_back`: those in use before are so again; whether they are whole
    keep(journal)         `committed`: what was kept to go back is removed

At every instant `current` leads to wholly the old weights, or to wholly the new ones, or to
nothing. What a mode leaves behind on purpose is removed by `tidy` when the model is at rest.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from edge_agent import files
from edge_agent.config import StorageMode
from edge_agent.errors import AgentError
from edge_agent.heavy import Heavy
from edge_agent.journal import Held, Journal, SlotName
from edge_agent.slots.directory import SLOTS, Directory
from edge_agent.trust import Promise
from shared.errors import BadWeights

_log = logging.getLogger(__name__)


class Storage(Directory, ABC):
    """One model's weights.

    `max_chain`: most packages that one update may take. `keeps_previous`: whether there is
    something to go back to after the commit.
    """

    mode: ClassVar[StorageMode]
    max_chain: ClassVar[int]
    keeps_previous: ClassVar[bool]

    def __init__(self, directory: Path, heavy: Heavy) -> None:
        super().__init__(directory)
        self._heavy = heavy

    def adopt(self, initial: Path) -> None:
        """Take in the weights that the device was delivered with, if there are none yet.

        Where it was interrupted, it goes on; weights that are not those are not put into use.
        Raises BadWeights where `initial` is not a weights file.
        """
        if not any(files.exists(self.path(name)) for name in SLOTS):
            if not files.exists(initial):
                raise BadWeights("not_found", f"{initial}: no such file")
            if self._heavy.digest(initial) is None:
                raise BadWeights("malformed", f"{initial} is not a weights file")
            files.copy(initial, self.path("a"))
        if self.current() is None:
            found = self.digest("a")
            if found and found == self._heavy.digest(initial):
                self.point_to("a")

    def digest(self, name: SlotName) -> str | None:
        """The weights digest of what a slot holds now, read from the disk; None if unreadable."""
        path = self.path(name)
        return self._heavy.digest(path) if files.exists(path) else None

    def stage_digest(self, number: int) -> str | None:
        """As `digest`, of a stage."""
        path = self.stage(number)
        return self._heavy.digest(path) if files.exists(path) else None

    def survey(self) -> dict[SlotName, Held]:
        """What the slots hold, by reading them: for a device without a journal."""
        found = {name: self.digest(name) for name in SLOTS}
        return {name: Held(digest=digest) for name, digest in found.items() if digest}

    def undo_change(self, name: SlotName) -> bool:
        """Change a slot back by the undo file; False where one of the two is damaged."""
        try:
            self._heavy.toggle(self.path(name), self.undo, "old")
        except AgentError as error:
            if error.code != "agent.slot_damaged":
                raise
            _log.error("%s", error)
            return False
        return True

    def recover(self) -> None:
        """Undo a change in place that was under way, where no journal says how far it came.

        There is no link then. Of two slots, nobody knows which one it was.
        """
        there = [name for name in SLOTS if files.exists(self.path(name))]
        is_under_way = files.exists(self.undo) and self.current() is None and len(there) == 1
        if is_under_way and self.undo_change(there[0]):
            self.point_to(there[0])

    def tidy(self) -> None:
        """Remove all that only an update under way needs."""
        self.keep_packages(())
        self.drop_stages()
        self.drop_undo()

    def drop_undo(self) -> None:
        """Remove the undo file, if there is one, and what belongs to it."""
        for path in (self.undo, self.undo.with_name(f"{self.undo.name}.scratch")):
            if files.exists(path):
                files.remove(path)

    @abstractmethod
    def overwrites(self, journal: Journal) -> bool: ...  # noqa: D102 - all in the docstring above

    @abstractmethod
    def fill(self, base: SlotName | None = None) -> SlotName: ...  # noqa: D102

    @abstractmethod
    def needed(self, results: list[int], fill: SlotName, base: SlotName | None) -> int:
        """`results`: bytes that each package gives; `base`: the slot that the first starts from."""

    @abstractmethod
    def make(self, journal: Journal, package: Path, promise: Promise, source: Path | None) -> None:
        """`source`: the weights that the package starts from."""

    @abstractmethod
    def switch(self, journal: Journal) -> None: ...  # noqa: D102

    @abstractmethod
    def go_back(self, journal: Journal) -> bool: ...  # noqa: D102

    @abstractmethod
    def keep(self, journal: Journal) -> None: ...  # noqa: D102

    def _is_whole(self, journal: Journal) -> bool:
        """Whether the slot to go back to holds what it held before."""
        before, previous = journal.before, journal.previous
        if previous is None:
            return True
        return before is not None and self.digest(previous) == before.digest
