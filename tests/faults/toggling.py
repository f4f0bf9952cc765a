"""The promise of `undo.toggle`: cut anywhere, and once more, it ends wholly on one side."""

from __future__ import annotations

from pathlib import Path

from edge_agent import undo
from edge_agent.errors import AgentError
from tests.faults.images import Image, Tree, build
from tests.faults.interrupting import OLD, Mutate, record, states
from tests.faults.nodes import DEATH
from tests.faults.recording import Noted, RecordingDisk
from tests.faults.stage import Broken, using


def toggle(root: Path, mutate: Mutate) -> None:
    """Cut anywhere and called again for either side, it ends there; cut once more as well."""
    old, new = _undo_case(root)
    for tree in record(root, lambda: undo.toggle(root / "weights", root / "undo", "new"), mutate):
        for loss in (DEATH, *tree.losses()):
            for to, wanted in (("new", new), ("old", old)):
                noted = _toggled(root / "again", tree.image(loss), to, wanted)
                if loss == DEATH:
                    _cut_again(root, tree.copy().mark(), mutate(noted), to, wanted)


def _cut_again(root: Path, killed: Tree, noted: list[Noted], to: str, wanted: bytes) -> None:
    for tree in states(killed, noted):
        if not tree.is_marked():
            return
        for loss in tree.losses():
            _toggled(root / "again", tree.image(loss), to, wanted)


def _toggled(place: Path, image: Image, to: str, wanted: bytes) -> list[Noted]:
    for path in place.iterdir() if place.exists() else ():
        path.unlink()
    place.mkdir(exist_ok=True)
    build(image, place)
    with using(disk := RecordingDisk(place)):
        try:
            undo.toggle(place / "weights", place / "undo", to)  # type: ignore[arg-type]
        except AgentError as error:
            raise Broken(str(error)) from error
    if (place / "weights").read_bytes() != wanted:
        raise Broken("mixed weights")
    return disk.noted


def _undo_case(root: Path) -> tuple[bytes, bytes]:
    """A file of which four pieces change, two between two syncs."""
    front, size = 64, 700
    old = bytes(front) + OLD[:1] * (4 * size)
    new = bytes(front) + b"".join(bytes([n]) * size for n in b"abcd")
    (root / "weights").write_bytes(old)
    with (root / "weights").open("rb") as file, (root / "undo").open("wb") as output:
        writer = undo.Writer(output, undo.WeightsFile.of(file, front))
        for at in range(front, len(old), size):
            writer.add(at, 4, old[at : at + size], new[at : at + size])
        writer.close()
    undo.make_scratch(root / "undo", writer.changed)
    return old, new
