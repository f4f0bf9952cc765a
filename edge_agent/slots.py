"""Mode `ab`: two slots per model, and the symbolic link `current` to the one in use.

<state_dir>/models/<model>/
    current -> slots/a.safetensors      what programs open; replaced atomically
    slots/a.safetensors, slots/b.safetensors
    package-<sha256>.weft               the packages under way
    stage-0.safetensors, ...            what the packages of a chain give on the way; never in use
    journal.json
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import get_args

from edge_agent import files
from edge_agent.journal import Held, SlotName
from shared.errors import BadWeights
from shared.weights import WeightsReader

SLOTS: tuple[SlotName, ...] = get_args(SlotName)


class Slots:
    """The directory of one model."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.link = directory / "current"
        self.journal = directory / "journal.json"

    def prepare(self) -> None:
        """Make the directories, and remove what a killed agent left half-written."""
        files.make_directory(self.directory / "slots")
        files.clean(self.directory)
        files.clean(self.directory / "slots")

    def adopt(self, initial: Path) -> None:
        """Take in the weights that the device was delivered with, if there are none yet.

        Raises BadWeights where `initial` is not a weights file.
        """
        if not any(self.path(name).exists() for name in SLOTS):
            with WeightsReader(initial):
                files.copy(initial, self.path("a"))
        if self.current() is None and self.path("a").exists():
            self.switch("a")

    def path(self, name: SlotName) -> Path:
        """The weights file of a slot."""
        return self.directory / "slots" / f"{name}.safetensors"

    def current(self) -> SlotName | None:
        """The slot in use; None before the first installation."""
        if not self.link.is_symlink():
            return None
        target = self.link.readlink()
        return next((name for name in SLOTS if target.name == self.path(name).name), None)

    def switch(self, name: SlotName) -> None:
        """Put a slot into use."""
        files.link(self.link, f"slots/{self.path(name).name}")

    def package(self, sha256: str) -> Path:
        """Where a package is downloaded to: bytes of one package never mix with another's."""
        return self.directory / f"package-{sha256}.weft"

    def keep_packages(self, sha256s: Collection[str]) -> None:
        """Remove all packages but those."""
        kept = {self.package(sha256) for sha256 in sha256s}
        for path in self.directory.glob("package-*.weft"):
            if path not in kept:
                files.remove(path)

    def stage(self, number: int) -> Path:
        """Where what a package of a chain gives lies until the next one is applied to it."""
        return self.directory / f"stage-{number}.safetensors"

    def drop_stages(self, but: int | None = None) -> None:
        """Remove them all but one."""
        for path in self.directory.glob("stage-*.safetensors"):
            if but is None or path != self.stage(but):
                files.remove(path)

    def stage_bytes(self) -> int:
        """The space that they take."""
        return sum(path.stat().st_size for path in self.directory.glob("stage-*.safetensors"))

    def stage_digest(self, number: int) -> str | None:
        """As `digest`, of a stage."""
        return _digest(self.stage(number))

    def digest(self, name: SlotName) -> str | None:
        """The weights digest of what a slot holds now, read from the disk; None if unreadable."""
        return _digest(self.path(name))

    def size(self, name: SlotName) -> int:
        """Bytes of the file in a slot, 0 where there is none."""
        path = self.path(name)
        return path.stat().st_size if path.exists() else 0

    def survey(self) -> dict[SlotName, Held]:
        """What the slots hold, by reading them: for a device without a journal."""
        found = {name: self.digest(name) for name in SLOTS}
        return {name: Held(digest=digest) for name, digest in found.items() if digest}


def _digest(path: Path) -> str | None:
    try:
        with WeightsReader(path) as reader:
            return reader.digest().hex()
    except (BadWeights, OSError):
        return None


def other(name: SlotName | None) -> SlotName:
    """The slot that is free to be written."""
    return "b" if name == "a" else "a"
