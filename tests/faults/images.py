"""What a disk holds after a crash: a small model of a file system.

Each file has its content, and the content that its last `fsync` made durable; each directory has
its names, and those that its last sync made durable (`nodes.py`). The operations of a recording
are carried out one by one, and the state at any point gives images:

* process death: all operations so far, as the kernel has them;
* power loss: of what was done since the last sync of a file or directory, the disk may hold
  nothing, all, or some. `Loss` says which; `Tree.losses` lists those that are tried.
"""

from __future__ import annotations

import copy
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from tests.faults.nodes import CONTENTS, DEATH, Content, File, Folder, Link, Loss, Node
from tests.faults.recording import (
    Fsync,
    FsyncDirectory,
    Mkdir,
    Open,
    Operation,
    Rename,
    Symlink,
    Truncate,
    Unlink,
    Write,
)

#: Path -> content and mode, destination of a link, or None for a directory.
Image: TypeAlias = dict[Path, tuple[bytes, int] | str | None]


class Tree:
    """A directory and all below it, which operations change."""

    def __init__(self, top: Folder | None = None) -> None:
        self.top = top or Folder()
        self._open: dict[int, File] = {}

    @classmethod
    def load(cls, directory: Path) -> Tree:
        """A real directory, all of it durable."""
        return cls(_loaded(directory))

    def copy(self) -> Tree:
        return copy.deepcopy(self)

    def go(self, operations: Iterable[Operation]) -> Tree:
        """Carry out operations; the openings of an earlier recording are forgotten."""
        for operation in operations:
            self._do(operation)
        return self

    def _do(self, operation: Operation) -> None:
        match operation:
            case Open(path, number, mode):
                folder = self.folder(path.parent)
                if path.name not in folder.names:
                    folder.change({path.name: File(mode)})
                file = folder.names[path.name]
                assert isinstance(file, File)
                self._open[number] = file
            case Write(number) | Truncate(number):
                self._open[number].change(operation)
            case Fsync(number):
                self._open[number].sync()
            case Rename(path, target):
                folder = self.folder(path.parent)
                folder.change({target.name: folder.names[path.name], path.name: None})
            case Unlink(path):
                self.folder(path.parent).change({path.name: None})
            case Symlink(path, destination):
                self.folder(path.parent).change({path.name: Link(destination)})
            case Mkdir(path):
                self.folder(path.parent).change({path.name: Folder()})
            case FsyncDirectory(path):
                self.folder(path).sync()

    def folder(self, path: Path) -> Folder:
        found = self.top
        for name in path.parts:
            inner = found.names[name]
            assert isinstance(inner, Folder)
            found = inner
        return found

    def image(self, loss: Loss = DEATH) -> Image:
        """What a start after the loss finds."""
        numbers = {id(file): number for number, file in enumerate(self._dirty_files())}
        starts, at = {}, 0
        for folder in self._folders():
            starts[id(folder)] = at
            at += len(folder.pending)
        image: Image = {}
        self._show(Path(), self.top, loss, starts, numbers, image)
        return image

    def _show(
        self,
        place: Path,
        folder: Folder,
        loss: Loss,
        starts: dict[int, int],
        numbers: dict[int, int],
        image: Image,
    ) -> None:
        if loss.names == "all":
            names = folder.names
        else:
            start, count = starts.get(id(folder), 0), len(folder.pending)
            names = folder.after(n - start for n in loss.names if start <= n < start + count)
        for name, node in sorted(names.items()):
            path = place / name
            if isinstance(node, Folder):
                image[path] = None
                self._show(path, node, loss, starts, numbers, image)
            elif isinstance(node, Link):
                image[path] = node.destination
            else:
                is_kept = loss.but is not None and numbers.get(id(node)) == loss.but
                image[path] = node.after("all" if is_kept else loss.content), node.mode

    def mark(self) -> Tree:
        """Remember what is not durable now."""
        for node in (*self._folders(), *self._dirty_files()):
            node.marked = bool(node.pending)
        return self

    def is_marked(self) -> bool:
        """Whether something that was marked is still not durable."""
        return any(node.marked for node in (*self._folders(), *self._dirty_files()))

    def losses(self) -> Iterator[Loss]:
        """The power losses to be tried in this state, none of which leaves all as it is.

        Of names, none, all, and each change alone; of content, what `Content` lists, and each file
        alone.
        """
        changes = sum(len(folder.pending) for folder in self._folders())
        alone = [(number,) for number in range(changes)] if changes > 1 else []
        dirty = len(self._dirty_files())
        contents: list[tuple[Content, int | None]] = [("all", None)]
        if dirty:
            contents = [(kept, None) for kept in CONTENTS]  # type: ignore[misc]
        if dirty > 1:
            contents += [("none", number) for number in range(dirty)]
        for names in [(), *alone, "all"] if changes else ["all"]:
            for kept, but in contents:
                loss = Loss(names, kept, but)  # type: ignore[arg-type]
                if loss != DEATH:
                    yield loss

    def _folders(self) -> list[Folder]:
        """All that can be reached, by names that are durable or not."""
        found: list[Folder] = []
        _collect(self.top, found, [], set())
        return found

    def _dirty_files(self) -> list[File]:
        found: list[File] = []
        _collect(self.top, [], found, set())
        return [file for file in found if file.pending]


def _collect(folder: Folder, folders: list[Folder], found: list[File], seen: set[int]) -> None:
    folders.append(folder)
    nodes = [*folder.names.items(), *folder.durable.items()]
    for changes in folder.pending:
        nodes += [(name, node) for name, node in changes.items() if node is not None]
    for _, node in sorted(nodes, key=lambda entry: entry[0]):
        if id(node) not in seen:
            seen.add(id(node))
            if isinstance(node, Folder):
                _collect(node, folders, found, seen)
            elif isinstance(node, File):
                found.append(node)


def _loaded(directory: Path) -> Folder:
    names: dict[str, Node] = {}
    for path in sorted(directory.iterdir()):
        if path.is_symlink():
            names[path.name] = Link(str(path.readlink()))
        elif path.is_dir():
            names[path.name] = _loaded(path)
        else:
            data = path.read_bytes()
            names[path.name] = File(stat.S_IMODE(path.stat().st_mode), data, data)
    return Folder(names, dict(names))


def build(image: Image, directory: Path) -> None:
    """Make an empty directory hold what an image says."""
    for path, node in image.items():
        place = directory / path
        if node is None:
            place.mkdir()
        elif isinstance(node, str):
            place.symlink_to(node)
        else:
            data, mode = node
            place.write_bytes(data)
            place.chmod(mode)


def halved(operation: Operation) -> Operation | None:
    """A write of which only the first half was made; None where there is no such half."""
    if isinstance(operation, Write) and len(operation.data) > 1:
        return operation._replace(data=operation.data[: len(operation.data) // 2])
    return None
