"""A file and a directory as the kernel has them and as the disk has them, and what a loss leaves.

The model grants no more than POSIX does. The names of a directory and the content of a file reach
the disk independently of each other, in any order (so a name may be there before the content, and
the other way round), and a sync makes durable just what it is asked for. A name is changed by one
operation, a rename within a directory too, which is there as a whole or not at all. Bytes reach the
disk in sectors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from tests.faults.recording import Truncate, Write

SECTOR_BYTES = 512


@dataclass
class File:
    """`pending`: what was done since the last sync; `marked`: some of it before a mark was set."""

    mode: int = 0o644
    data: bytes = b""
    durable: bytes = b""
    pending: list[Write | Truncate] = field(default_factory=list)
    marked: bool = False

    def change(self, change: Write | Truncate) -> None:
        self.data = changed(self.data, change)
        self.pending.append(change)

    def sync(self) -> None:
        self.durable, self.pending, self.marked = self.data, [], False

    def after(self, kept: Content) -> bytes:
        """The content after a power loss that has kept so much of what was not synced."""
        return CONTENTS[kept](self)


class Link(NamedTuple):
    destination: str


Node: TypeAlias = "File | Link | Folder"
#: Names that one operation adds (a node) or takes away (None).
Names: TypeAlias = dict[str, "Node | None"]


@dataclass
class Folder:
    """`pending`: changes of names since the last sync, each whole or not at all; as in `File`."""

    names: dict[str, Node] = field(default_factory=dict)
    durable: dict[str, Node] = field(default_factory=dict)
    pending: list[Names] = field(default_factory=list)
    marked: bool = False

    def change(self, names: Names) -> None:
        self.names = renamed(self.names, names)
        self.pending.append(names)

    def sync(self) -> None:
        self.durable, self.pending, self.marked = dict(self.names), [], False

    def after(self, kept: Iterable[int]) -> dict[str, Node]:
        """The names after a power loss that has kept these of the pending changes."""
        names = self.durable
        for number in kept:
            names = renamed(names, self.pending[number])
        return names


def changed(data: bytes, change: Write | Truncate) -> bytes:
    if isinstance(change, Truncate):
        return data[: change.size].ljust(change.size, b"\0")
    end = change.offset + len(change.data)
    return data[: change.offset].ljust(change.offset, b"\0") + change.data + data[end:]


def renamed(names: dict[str, Node], changes: Names) -> dict[str, Node]:
    kept = {name: node for name, node in names.items() if name not in changes}
    return kept | {name: node for name, node in changes.items() if node is not None}


# What a power loss leaves of the content of a file.

Content: TypeAlias = Literal["none", "prefix", "even sectors", "odd sectors", "zeros", "all"]


def _prefix(file: File) -> bytes:
    """The pending changes in their order, up to half of the bytes."""
    data, room = file.durable, sum(_length(change) for change in file.pending) // 2
    for change in file.pending:
        if isinstance(change, Write):
            data = changed(data, change._replace(data=change.data[:room]))
        elif room:
            data = changed(data, change)
        room = max(0, room - _length(change))
    return data


def _length(change: Write | Truncate) -> int:
    return len(change.data) if isinstance(change, Write) else 1


def _sectors(file: File, odd: int) -> bytes:
    """Every second sector; what is skipped and was never written before reads as zeros."""
    before = file.durable[: len(file.data)].ljust(len(file.data), b"\0")
    pieces = []
    for number, at in enumerate(range(0, len(file.data), SECTOR_BYTES)):
        source = file.data if number % 2 == odd else before
        pieces.append(source[at : at + SECTOR_BYTES])
    return b"".join(pieces)


def _zeros(file: File) -> bytes:
    """The room is taken, and what was to be there is not."""
    data = file.durable
    for change in file.pending:
        blank = change._replace(data=bytes(len(change.data))) if isinstance(change, Write) else None
        data = changed(data, blank or change)
    return data


CONTENTS = {
    "none": lambda file: file.durable,
    "prefix": _prefix,
    "even sectors": lambda file: _sectors(file, 0),
    "odd sectors": lambda file: _sectors(file, 1),
    "zeros": _zeros,
    "all": lambda file: file.data,
}


class Loss(NamedTuple):
    """What is kept of a state when the power fails.

    `names`: numbers of the pending changes of names that are kept, over all directories, or "all".
    `content`: what is kept of the content of files; `but` is one file that is kept as a whole.
    """

    names: tuple[int, ...] | Literal["all"]
    content: Content
    but: int | None = None

    def __str__(self) -> str:
        but = f", all of file {self.but}" if self.but is not None else ""
        names = self.names if self.names == "all" else list(self.names) or "none"
        return f"names: {names}, content: {self.content}{but}"


#: Nothing is lost: how a process dies.
DEATH = Loss("all", "all")
