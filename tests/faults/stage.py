"""Where scenes are played: prepared, recorded, and played on from what a crash has left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent import files
from edge_agent.journal import load_journal
from edge_agent.report import Outbox
from shared.wire import Report
from tests.edge_agent.plane import MODEL, Bench, Plane, Shelf
from tests.faults.images import Image, Tree, build
from tests.faults.recording import Noted, RecordingDisk
from tests.faults.scenes import Offer, Scene, When, offer, rotate

#: Starts of the agent after a crash, by which all must be at rest.
MAX_STARTS = 6
#: Of the update that is recorded, and of what the server wants instead after the crash.
ASSIGNMENT, NEWS = 9, 10


class Broken(AssertionError):
    """A crash has left, or led to, what must not be."""


@dataclass(frozen=True)
class Played:
    """A scene as it goes undisturbed. `heard`: the bodies of the reports, in their order."""

    scene: Scene
    before: Tree
    noted: list[Noted]
    heard: list[bytes]
    after: Image


class Stage:
    """One server and one folder, for one scene after the other."""

    def __init__(self, plane: Plane, shelf: Shelf, folder: Path) -> None:
        self.plane, self.shelf, self._folder = plane, shelf, folder
        self._count = 0

    def bench(self, root: Path, scene: Scene, when: When = "recorded") -> Bench:
        """An agent whose state directory is below `root`."""
        settings = {
            "server": self.plane.url,
            "name": "lamp-3",
            "state_dir": str(root / "state"),
            "enrolment_token": self.plane.enrolment_token,
            "timeout_seconds": 20,
            "models": {MODEL: scene.model(self.shelf, when)},
        }
        return Bench(settings)

    def play(self, scene: Scene) -> Played:
        """Play a scene from its beginning to its end."""
        with self.place() as root:
            with using(RecordingDisk(root)):
                for number, what in enumerate(scene.before, 1):
                    offer(self.plane, self.shelf, what, number)
                    assert self.bench(root, scene, "before").round() == []
            if scene.rotates:
                rotate(self.plane)
            before = Tree.load(root)
            self.plane.bodies.clear()
            disk = RecordingDisk(root, lambda: len(self.plane.bodies))
            with using(disk):
                self.rounds(self.bench(root, scene), scene.offer, ASSIGNMENT)
            heard, after = list(self.plane.bodies), Tree.load(root).image()
            played = Played(scene, before, disk.noted, heard, after)
            self.check_reports(played, heard)
            self.check_use(scene, root, {scene.ends})
            return played

    def rounds(self, bench: Bench, what: Offer, assignment: int) -> list[str]:
        """Start the agent again and again until it is at rest; the codes of what went wrong."""
        offer(self.plane, self.shelf, what, assignment)
        codes: list[str] = []
        for _ in range(MAX_STARTS):
            errors = bench.round()
            codes += errors
            if not errors and self.rests(bench):
                return codes
        raise Broken(f"not at rest after {MAX_STARTS} starts: {codes}")

    def rests(self, bench: Bench) -> bool:
        """Whether the update has ended, and all that is to be told has been."""
        journal = load_journal(bench.folder / "journal.json")
        pending = Outbox(bench.config.state_dir / "reports.json").pending
        return journal is not None and journal.state == "idle" and not pending

    def go_on(self, played: Played, image: Image, heard: tuple[int, int]) -> list[Noted]:
        """Start agents on what a crash has left, and hold what they do against what must be.

        `heard`: how many reports the server had at least, and at most, before the crash. Returns
        what was done to the disk. Raises Broken.
        """
        scene = played.scene
        with self.place() as root:
            build(image, root)
            self.check_use(scene, root, scene.allowed())
            self.plane.bodies[:] = played.heard[: heard[0]]
            disk = RecordingDisk(root, lambda: len(self.plane.bodies))
            bench = self.bench(root, scene, "after")
            with using(disk):
                if scene.news:
                    self.rounds(bench, scene.news, NEWS)
                    self._check_news(played, root, scene.news)
                else:
                    self.rounds(bench, scene.offer, ASSIGNMENT)
                    self._check_end(played, root)
            check_counters(played.heard[: heard[1]] + self.plane.bodies)
            return disk.noted

    def _check_end(self, played: Played, root: Path) -> None:
        if played.scene.rejected:
            self._check_verdict(played, root)
            return
        self.check_use(played.scene, root, {played.scene.ends})
        self.check_reports(played, self.plane.bodies)
        check_equal(Tree.load(root).image(), played.after)

    def _check_verdict(self, played: Played, root: Path) -> None:
        """The weights are accepted or not, once and for all."""
        scene = played.scene
        self.check_use(scene, root, {scene.starts, scene.ends})
        is_new = self.bench(root, scene).in_use() == self.shelf.digests[scene.offer.version]
        about = [told_of(body) for body in self.plane.bodies]
        results = {report["result"] for report in about if report["assignment"] == ASSIGNMENT}
        if results != {"committed" if is_new else "failed_rolled_back"}:
            raise Broken(f"reported: {results}, in use: {'new' if is_new else 'old'}")
        _check_names(root, played)

    def _check_news(self, played: Played, root: Path, news: Offer) -> None:
        """What was under way is finished or forgotten, as far as it had come; then the news is."""
        scene, told = played.scene, [told_of(body) for body in self.plane.bodies]
        versions = {news.version} if news.version and scene.result == "committed" else None
        self.check_use(scene, root, versions or {scene.starts, scene.ends})
        results = {number: set() for number in (ASSIGNMENT, NEWS, None)}
        for report in told:
            results[report["assignment"]].add(report["result"])
        if news.version and results[NEWS] != {scene.result}:
            raise Broken(f"reported: {results}")
        if not results[ASSIGNMENT] <= {scene.result}:
            raise Broken(f"reported: {results}")
        is_there = self.bench(root, scene).in_use() == self.shelf.digests[scene.offer.version]
        if is_there and not results[ASSIGNMENT]:
            raise Broken("it is in use, and the server does not know")
        _check_names(root, played)

    def check_use(self, scene: Scene, root: Path, allowed: set[int | None]) -> None:
        """What a program finds that opens `current`."""
        found = self.bench(root, scene).in_use()
        digests = {self.shelf.digests[n] if n else None for n in allowed}
        if found not in digests:
            raise Broken(f"in use: {found}, allowed: versions {allowed}")

    def check_reports(self, played: Played, heard: Sequence[bytes]) -> None:
        """The server has heard, once or more, of this one result, and of nothing else."""
        scene = played.scene
        told = [told_of(body) for body in heard]
        about = [report for report in told if report["assignment"] == ASSIGNMENT]
        results = {report["result"] for report in about}
        codes = {(report["error"] or {}).get("code") for report in about}
        if results != {scene.result} or codes != {scene.code}:
            raise Broken(f"reported: {results} {codes}, not {scene.result} {scene.code}")
        digest = self.shelf.digests[scene.ends] if scene.ends else None
        if {report["weights_digest"] for report in about} != {digest}:
            raise Broken("the report does not tell what is in use")

    @contextmanager
    def place(self) -> Iterator[Path]:
        """An empty directory, gone afterwards."""
        self._count += 1
        root = self._folder / str(self._count)
        root.mkdir()
        try:
            yield root
        finally:
            shutil.rmtree(root)


@contextmanager
def using(disk: files.Disk) -> Iterator[None]:
    """Have the agent's writes go through `disk`."""
    before, files.disk = files.disk, disk
    try:
        yield
    finally:
        files.disk = before


def _check_names(root: Path, played: Played) -> None:
    """There are no other files than at the end of what was recorded."""
    if left := Tree.load(root).image().keys() - played.after.keys():
        raise Broken(f"files: {sorted(map(str, left))}")


def told_of(body: bytes) -> dict[str, Any]:
    """What a report says, with what goes without saying."""
    return Report.model_validate_json(body).model_dump()


def check_counters(heard: Sequence[bytes]) -> None:
    """A repetition is known by its counter: the same one never comes with other bytes."""
    told: dict[int, bytes] = {}
    for body in heard:
        if told.setdefault(json.loads(body)["counter"], body) != body:
            raise Broken(f"two reports with one counter: {body!r}")


def check_equal(found: Image, expected: Image) -> None:
    """The same files with the same content: nothing is left over, nothing grows."""
    if found.keys() != expected.keys():
        raise Broken(f"files: {sorted(map(str, found.keys() ^ expected.keys()))}")
    for path, node in expected.items():
        if _comparable(path, node) != _comparable(path, found[path]):
            raise Broken(f"{path}: {found[path]!r}, undisturbed: {node!r}")


def _comparable(path: Path, node: Any) -> Any:
    """Reports that were sent twice have used more counters; each device makes its own key."""
    if path.name == "device.key":
        return len(node[0]), node[1]
    if path.name != "reports.json":
        return node
    data, mode = node
    return json.loads(data) | {"counter": None}, mode
