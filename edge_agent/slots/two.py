"""Mode `ab`: new weights are made in the slot that is not in use, and the link is turned."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from edge_agent import files
from edge_agent.config import StorageMode
from edge_agent.journal import Journal, SlotName
from edge_agent.slots.base import Storage
from edge_agent.trust import Promise
from shared.wire import MAX_CHAIN


class TwoSlots(Storage):
    """See the contract in `base`."""

    mode: ClassVar[StorageMode] = "ab"
    max_chain: ClassVar[int] = MAX_CHAIN
    keeps_previous: ClassVar[bool] = True

    def overwrites(self, journal: Journal) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def fill(self, base: SlotName | None = None) -> SlotName:  # noqa: ARG002
        """The one that is not in use."""
        return "b" if self.current() == "a" else "a"

    def needed(self, results: list[int], fill: SlotName, base: SlotName | None) -> int:
        """What the results take, less what is removed before they are made."""
        gained = self.size(fill) if base != fill else 0
        return peak_bytes(results) - gained - self.stage_bytes()

    def make(self, journal: Journal, package: Path, promise: Promise, source: Path | None) -> None:
        """Write the slot as a whole."""
        assert journal.fill is not None
        self._heavy.apply(package, promise, source, self.path(journal.fill))

    def switch(self, journal: Journal) -> None:
        """Turn the link."""
        assert journal.fill is not None
        self.point_to(journal.fill)

    def go_back(self, journal: Journal) -> bool:
        """Turn the link back, or remove it, if nothing was in use."""
        if journal.previous is None:
            files.remove(self.link)
        else:
            self.point_to(journal.previous)
        return self._is_whole(journal)

    def keep(self, journal: Journal) -> None:
        """Keep the other slot, to go back to without any package."""


def peak_bytes(results: list[int]) -> int:
    """The most that results of a chain take at a time: one while it is made from the one before."""
    return max(results[0], *(one + other for one, other in pairwise(results)), 0)
