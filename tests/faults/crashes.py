"""Each point of a recording at which the agent may be killed or the power may fail.

A second crash is tried where it tells something new: when an agent was killed, what it had not
synced is still in memory only, and the next one is started on it. Until that has been synced as
well, the power may fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.faults.images import Image, Tree, halved
from tests.faults.nodes import DEATH
from tests.faults.recording import Noted
from tests.faults.stage import Broken, Played, Stage


class Point(NamedTuple):
    """After `done` operations; `half`: and after half of the write that follows."""

    done: int
    half: bool = False

    def __str__(self) -> str:
        return f"{self.done}½" if self.half else str(self.done)


@dataclass
class Tried:
    """How much was tried. `starts`: of agents; not for an image that was there already."""

    points: int = 0
    deaths: int = 0
    losses: int = 0
    second: int = 0
    starts: int = 0
    seen: set[object] = field(default_factory=set)

    def counts(self) -> dict[str, int]:
        """For people."""
        return {
            "points": self.points,
            "images of process death": self.deaths,
            "images of power loss": self.losses,
            "images of power loss after a process death": self.second,
            "different ones, on which agents were started": self.starts,
        }

    def is_new(self, image: Image, heard: tuple[int, int]) -> bool:
        key = (frozenset(image.items()), heard)
        is_new = key not in self.seen
        self.seen.add(key)
        return is_new


def points(noted: list[Noted]) -> Iterator[Point]:
    """All of them: before, between and after the operations, and in the middle of each write."""
    for done in range(len(noted) + 1):
        yield Point(done)
        if done < len(noted) and halved(noted[done].operation):
            yield Point(done, half=True)


def state_at(played: Played, point: Point) -> Tree:
    """The disk at a point, and what of it is durable."""
    tree = played.before.copy().go(noted.operation for noted in played.noted[: point.done])
    half = halved(played.noted[point.done].operation) if point.half else None
    return tree.go([half]) if half else tree


def heard_at(played: Played, point: Point) -> tuple[int, int]:
    """How many reports the server had at least, and at most, when all ended at that point."""
    noted = played.noted
    most = noted[point.done].heard if point.done < len(noted) else len(played.heard)
    least = noted[max(0, point.done - 1)].heard
    return most if point.half else least, most


def crash(stage: Stage, played: Played, chosen: Iterable[Point], *, twice: bool) -> Tried:
    """Each image of the points; with `twice`, second crashes as well. Raises Broken."""
    tried = Tried()
    for point in chosen:
        tree, heard = state_at(played, point), heard_at(played, point)
        tried.points += 1
        for loss in (DEATH, *tree.losses()):
            tried.deaths += loss == DEATH
            tried.losses += loss != DEATH
            image = tree.image(loss)
            if not tried.is_new(image, heard):
                continue
            noted = _started(stage, played, image, heard, f"{point}, {loss}", tried)
            if loss == DEATH and twice:
                killed = tree.copy().mark()
                again = Played(played.scene, killed, noted, list(stage.plane.bodies), played.after)
                _lose_power(stage, again, tried, f"{point}, then")
    return tried


def _lose_power(stage: Stage, again: Played, tried: Tried, told: str) -> None:
    """... while something that the agent did before it was killed is in memory only."""
    for point in points(again.noted):
        tree = state_at(again, point)
        if not tree.is_marked():
            return
        heard = heard_at(again, point)
        for loss in tree.losses():
            tried.second += 1
            image = tree.image(loss)
            if tried.is_new(image, heard):
                _started(stage, again, image, heard, f"{told} {point}, {loss}", tried)


def _started(
    stage: Stage, played: Played, image: Image, heard: tuple[int, int], told: str, tried: Tried
) -> list[Noted]:
    tried.starts += 1
    try:
        return stage.go_on(played, image, heard)
    except Broken as broken:
        raise Broken(f"{played.scene.name}, at {told}: {broken}") from broken
