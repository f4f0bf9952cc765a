"""The directory of one model on this device.

<state_dir>/models/<model>/
    current -> slots/a.safetensors      what programs open; replaced atomically
    slots/a.safetensors, slots/b.safetensors
    package-<sha256>.weft               the packages under way
    stage-0.safetensors, ...            what the packages of a chain give on the way; never in use
    undo, undo.scratch                  of an update in place
    journal.json
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import get_args

from edge_agent import files
from edge_agent.journal import SlotName

SLOTS: tuple[SlotName, ...] = get_args(SlotName)


class Directory:
    """What lies where, and the moves that are the same in all modes. Each raises NoSpace."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.link = directory / "current"
        self.journal = directory / "journal.json"
        self.undo = directory / "undo"

    def prepare(self) -> None:
        """Make the directories, and remove what a killed agent left half-written."""
        files.make_directory(self.directory / "slots")
        files.clean(self.directory)
        files.clean(self.directory / "slots")

    def path(self, name: SlotName) -> Path:
        """The weights file of a slot."""
        return self.directory / "slots" / f"{name}.safetensors"

    def current(self) -> SlotName | None:
        """The slot in use; None before the first installation, or where somebody took the link."""
        target = files.destination(self.link)
        return next((name for name in SLOTS if target == self._destination(name)), None)

    def point_to(self, name: SlotName) -> None:
        """Make `current` lead to a slot."""
        files.link(self.link, self._destination(name))

    def _destination(self, name: SlotName) -> str:
        """Relative, so that the state directory can be moved."""
        return f"slots/{self.path(name).name}"

    def package(self, sha256: str) -> Path:
        """Where a package is downloaded to: bytes of one package never mix with another's."""
        return self.directory / f"package-{sha256}.weft"

    def keep_packages(self, sha256s: Collection[str]) -> None:
        """Remove all packages but those."""
        kept = {self.package(sha256) for sha256 in sha256s}
        for path in files.matching(self.directory, "package-*.weft"):
            if path not in kept:
                files.remove(path)

    def stage(self, number: int) -> Path:
        """Where what a package of a chain gives lies until the next one is applied to it."""
        return self.directory / f"stage-{number}.safetensors"

    def drop_stages(self, but: int | None = None) -> None:
        """Remove them all but one."""
        for path in files.matching(self.directory, "stage-*.safetensors"):
            if but is None or path != self.stage(but):
                files.remove(path)

    def stage_bytes(self) -> int:
        """The space that they take."""
        return sum(map(files.size, files.matching(self.directory, "stage-*.safetensors")))

    def size(self, name: SlotName) -> int:
        """Bytes of the file in a slot, 0 where there is none."""
        return files.size(self.path(name))
