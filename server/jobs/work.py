"""What is run: the contract between the queue and the rooms that know what a refinement is.

The queue is one of the commons and imports no room, so the app hands it the work.

A work's folder outlives the child: a second start finds there what the first one left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Work(Protocol):
    """Prepares a refinement for its child, and takes over what the child made.

    The child writes progress to its stdout, one JSON object a line. It ends with status 0 and its
    results in the folder, or with another status and `error.json` (code, message, todo). It ends
    at once when its stdin does: then the server has gone.
    """

    def prepare(self, refinement_id: int, folder: Path) -> list[str]:
        """Put into `folder` what the child needs, and return the child's command line.

        Called before every start, also the second on the same folder. Raises WeftError where the
        refinement cannot run at all.
        """
        ...

    def finish(self, refinement_id: int, folder: Path) -> None:
        """Take over the results, and set the refinement to `succeeded` in the same transaction.

        Changes nothing where the refinement is not ours any more (`queue.is_ours`): it was
        cancelled, or another worker took it over. Called again after a crash in the middle.
        Raises WeftError where the results cannot be used.
        """
        ...
