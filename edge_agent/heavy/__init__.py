"""What needs numpy, kept out of the process that runs for months.

The agent polls, waits and keeps journals in a process that never imports numpy. Whatever looks
into weights or packages is a task of `Heavy`:

* `Child` does it in a process of its own that ends with the answer, so that its memory is given
  back, and a crash or a kill of it is one error of ours (`agent.worker_died`);
* `Inline` does it in this process: for the commands that end anyway, and for tests that record
  what is done to the disk.

Both raise the same errors and do the same to the disk; a contract test holds them to it. A task
may be interrupted at any instruction and asked for again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from shared.errors import WeftError

if TYPE_CHECKING:
    from edge_agent.trust import Promise
    from edge_agent.trust.released import Released
    from edge_agent.undo import Side
    from shared.golden import Golden


@dataclass(frozen=True)
class About:
    """What can be decoded here, and why nothing can, if this machine is at fault."""

    formats: list[int]
    methods: dict[str, int]
    coders: list[str]
    dtypes: list[str]
    fault: WeftError | None = None


@dataclass(frozen=True)
class Inspection:
    """What packages say before anything is made.

    `sizes`: bytes of the weights that each gives. `golden`: samples for what the last one gives.
    """

    sizes: list[int]
    golden: Golden | None = None


class Heavy(Protocol):
    """The tasks. Each but `begin` may take seconds; paths are files on this machine."""

    def begin(self) -> None:
        """Set `about` going beside whatever is done next, where that is possible."""

    def end(self) -> None:
        """Give up what was begun, if nobody has asked for it."""

    def about(self) -> About:
        """What this machine can decode, found by doing it; raises nothing of ours."""

    def digest(self, path: Path) -> str | None:
        """The weights digest of a file, read from the disk; None where it is no weights file."""

    def inspect(self, packages: Sequence[tuple[Path, Promise]], base: Path | None) -> Inspection:
        """Look at packages that are applied one after the other, the first to `base`.

        Raises TrustError, BadPackage, BadWeights.
        """

    def apply(self, package: Path, promise: Promise, base: Path | None, output: Path) -> str:
        """Make `output` of `base`; returns its weights digest, which is the one promised.

        Raises TrustError, BadPackage, BadWeights, NoSpace, BadResult and WrongWeights; after any
        of them `output` is as it was.
        """

    def write_undo(self, package: Path, promise: Promise, base: Path, undo: Path) -> str:
        """Write to `undo` what turns `base` into the weights promised; returns their digest.

        Nothing of `base` is touched. Raises as `apply`; AgentError `needs_ab` where the tensors
        would be other ones.
        """

    def verify_metadata(
        self, state_dir: Path, model: str, answer: bytes | None, pin: str | None, now: float
    ) -> Released:
        """What is released of a model, by what is held and what was answered; see `trust.verify`.

        Raises TrustError, BadMetadata, NoSpace.
        """

    def toggle(self, weights: Path, undo: Path, to: Side) -> None:
        """Make the weights wholly old or wholly new, in place; see `edge_agent.undo`.

        Raises AgentError `slot_damaged` where they are neither, NoSpace.
        """
