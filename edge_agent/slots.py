"""Mode `ab`: two slots per model, and the symbolic link `current` to the one in use.

<state_dir>/models/<model>/
    current -> slots/a.safetensors      what programs open; replaced atomically
    slots/a.safetensors, slots/b.safetensors
    package.weft                        the package under way
    journal.json
"""

from __future__ import annotations

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

    def keep_package(self, sha256: str | None) -> None:
        """Remove all packages but that one."""
        for path in self.directory.glob("package-*.weft"):
            if sha256 is None or path != self.package(sha256):
                files.remove(path)

    def digest(self, name: SlotName) -> str | None:
        """The weights digest of what a slot holds now, read from the disk; None if unreadable."""
        try:
            with WeightsReader(self.path(name)) as reader:
                return reader.digest().hex()
        except (BadWeights, OSError):
            return None

    def size(self, name: SlotName) -> int:
        """Bytes of the file in a slot, 0 where there is none."""
        path = self.path(name)
        return path.stat().st_size if path.exists() else 0

    def survey(self) -> dict[SlotName, Held]:
        """What the slots hold, by reading them: for a device without a journal."""
        found = {name: self.digest(name) for name in SLOTS}
        return {name: Held(digest=digest) for name, digest in found.items() if digest}


def other(name: SlotName | None) -> SlotName:
    """The slot that is free to be written."""
    return "b" if name == "a" else "a"
