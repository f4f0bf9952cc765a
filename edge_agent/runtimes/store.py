"""Where a program finds the weights that it may use: the directory of a model, or one file.

The agent keeps `current` and `journal.json` in the directory. While an update is being swapped in
or judged, `current` may lead to weights that nobody has accepted yet: a program that starts then
takes the ones before, or waits where there are none (storage mode `inplace`).
"""

from __future__ import annotations

import os
from pathlib import Path

from edge_agent.journal import Journal, load_journal
from edge_agent.runtimes.base import Weights
from shared.errors import WeftError
from shared.wire import State

#: In these what is in use may not be what was accepted.
UNSETTLED: frozenset[State] = frozenset({"swapping", "verifying", "rolled_back"})


class Store:
    """One model's weights on the disk, as somebody sees them who only reads."""

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self._place = Path(place)

    def accepted(self) -> Weights | None:
        """The weights to use; their digest is empty where nobody has noted it."""
        if not self._place.is_dir():
            return Weights(self._place, "") if self._place.is_file() else None
        journal = self._journal()
        if journal is not None and journal.state in UNSETTLED:
            return self._before(journal)
        path = (self._place / "current").resolve()
        return _noted(journal, path) if path.is_file() else None

    def is_settled(self) -> bool:
        """Whether what is in use has been accepted."""
        journal = self._journal() if self._place.is_dir() else None
        return journal is None or journal.state not in UNSETTLED

    def _before(self, journal: Journal) -> Weights | None:
        if journal.storage != "ab" or journal.previous is None:
            return None
        path = (self._place / "slots" / f"{journal.previous}.safetensors").resolve()
        return _noted(journal, path) if path.is_file() else None

    def _journal(self) -> Journal | None:
        try:
            return load_journal(self._place / "journal.json")
        except WeftError:  # of a later agent: what is in use is all that is known
            return None


def _noted(journal: Journal | None, path: Path) -> Weights:
    held = {str(name): held for name, held in journal.slots.items()} if journal else {}
    known = held.get(path.stem)
    return Weights(path, known.digest, known.version) if known else Weights(path, "")
