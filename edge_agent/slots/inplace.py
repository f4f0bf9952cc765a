"""Mode `inplace`: one file, changed in place, with an undo file until the update is committed.

The undo file is made and checked before anything is touched (`edge_agent.undo`). While the file is
neither old nor new, `current` leads nowhere: a program that starts then finds no weights, which is
better than mixed ones. The first weights of a model are written as in mode `ab`; so are those made
from the slot that is not in use, which there is only after a change of the mode.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from edge_agent import files
from edge_agent.config import StorageMode
from edge_agent.journal import Journal, SlotName
from edge_agent.slots.directory import SLOTS
from edge_agent.slots.two import TwoSlots
from edge_agent.trust import Promise

#: The scratch file, and what is left free while the undo file grows.
_BESIDE_BYTES = 9 << 20


class OneFile(TwoSlots):
    """See the contract in `base`."""

    mode: ClassVar[StorageMode] = "inplace"
    max_chain: ClassVar[int] = 1
    keeps_previous: ClassVar[bool] = False

    def overwrites(self, journal: Journal) -> bool:
        """Wherever there are weights in use."""
        return journal.before is not None and journal.fill == journal.previous

    def fill(self, base: SlotName | None = None) -> SlotName:
        """The one that is in use; a slot of mode `ab` is written once more, where all starts there.

        It is written as in that mode, and the other one goes with the commit.
        """
        return base or self.current() or "a"

    def needed(self, results: list[int], fill: SlotName, base: SlotName | None) -> int:
        """What is written as in mode `ab`, or a guess at the undo file, which is not made yet."""
        if fill != self.current():
            return super().needed(results, fill, base)
        return _BESIDE_BYTES

    def make(self, journal: Journal, package: Path, promise: Promise, source: Path | None) -> None:
        """Make the undo file; nothing that is in use is touched."""
        if not self.overwrites(journal):
            super().make(journal, package, promise, source)
            return
        assert journal.fill is not None
        self.drop_undo()
        self._heavy.write_undo(package, promise, self.path(journal.fill), self.undo)

    def switch(self, journal: Journal) -> None:
        """Change the file; meanwhile there are no weights to be found."""
        if self.overwrites(journal):
            assert journal.fill is not None
            files.remove(self.link)
            self._heavy.toggle(self.path(journal.fill), self.undo, "new")
        super().switch(journal)

    def go_back(self, journal: Journal) -> bool:
        """Change the file back; weights that are not whole are not to be found."""
        previous = journal.previous
        if previous is None or previous != journal.fill:
            return super().go_back(journal)
        files.remove(self.link)
        if files.exists(self.undo):  # else it is done, and was interrupted when all was tidied up
            self.undo_change(previous)
        is_whole = self._is_whole(journal)
        if is_whole:
            self.point_to(previous)
        return is_whole

    def keep(self, journal: Journal) -> None:
        """Remove the undo file, and a slot of mode `ab`."""
        self.drop_undo()
        for name in SLOTS:
            if name != journal.fill:
                files.remove(self.path(name))
