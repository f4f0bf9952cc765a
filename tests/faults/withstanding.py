"""An agent on a disk that fails, and what it must have come to when the disk works again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from edge_agent.agent.loop import Agent
from shared.errors import WeftError
from tests.faults.failing import Extent, FailingDisk, Kind
from tests.faults.images import Tree, build
from tests.faults.scenes import offer
from tests.faults.stage import (
    ASSIGNMENT,
    MAX_STARTS,
    Broken,
    Played,
    Stage,
    check_counters,
    check_equal,
    told_of,
    using,
)

#: Turns of an agent by which all must be at rest, on a disk that works.
MAX_TURNS = 12
#: Turns on a disk that does not, the first ones of which may take space.
BROKEN_TURNS = 6
#: A journal that tells of one error more is longer.
SLACK_BYTES = 512
#: What the agent says of an error of the disk.
CODES: Mapping[Kind, str | None] = MappingProxyType(
    {
        "ENOSPC": "storage.no_space",
        "EIO": "storage.unusable",
        "EROFS": "storage.unusable",
        "short": None,
    }
)


class Fault(NamedTuple):
    """`restarts`: the agent is started again when the disk works again."""

    kind: Kind
    at: float
    extent: Extent = "once"
    restarts: bool = False

    def __str__(self) -> str:
        return f"{self.kind} at {self.at} {self.extent}{', restarted' if self.restarts else ''}"


class Trial:
    """One agent on one disk, which has one fault."""

    def __init__(self, stage: Stage, played: Played, fault: Fault, root: Path) -> None:
        self.stage, self.scene, self.played, self.fault = stage, played.scene, played, fault
        self.root, self.bench = root, stage.bench(root, played.scene)
        self.bench.settings["max_attempts"] = 100  # it is not given up
        self.disk = FailingDisk(fault.kind, fault.at, fault.extent)
        self.codes: list[str] = []
        self.starts = 1

    def run(self) -> None:
        """From the start of the agent until all is at rest."""
        stage = self.stage
        stage.plane.bodies.clear()
        stage.plane.enrolments.clear()
        offer(stage.plane, stage.shelf, self.scene.offer, ASSIGNMENT)
        with using(self.disk):
            while not self._lives():
                self.disk.repair()
                self.starts += 1
                if self.starts > MAX_STARTS:
                    raise Broken(f"not at rest after {MAX_STARTS} starts: {self.codes}")

    def _lives(self) -> bool:
        """One process; False where it ended by an error, or another one is to go on."""
        try:
            with self.bench.running() as agent:
                self.codes += [error.code for error in agent.recover()]
                if not self.disk.is_repaired:
                    self._suffer(agent)
                    self.disk.repair()
                    if self.fault.restarts:
                        return False
                self._goes_on(agent)
                return True
        except WeftError as error:
            self.codes.append(error.code)
            return False

    def _suffer(self, agent: Agent) -> None:
        """Turns on a broken disk, or until it has failed once."""
        taken: list[int] = []
        lasts, never = self.fault.extent != "once", self.fault.at == math.inf
        while len(taken) < BROKEN_TURNS if lasts else not (never or self.disk.has_failed):
            self._turn(agent)
            taken.append(_bytes_below(self.root))
            if len(taken) > MAX_TURNS:
                raise Broken("the disk does not fail")
        if lasts and taken[-1] > taken[BROKEN_TURNS // 2] + SLACK_BYTES:
            raise Broken(f"bytes taken after each turn: {taken}")

    def _goes_on(self, agent: Agent) -> None:
        """Until all is at rest, and the server has been asked whether there is anything else."""
        answered = agent.polls.answered
        for _ in range(MAX_TURNS):
            self._turn(agent)
            rests = all(update.journal.state == "idle" for update in agent.updates.values())
            if rests and self.stage.rests(self.bench) and agent.polls.answered > answered:
                return
        raise Broken(f"not at rest after {MAX_TURNS} turns: {self.codes}")

    def _turn(self, agent: Agent) -> None:
        self.codes += [error.code for error in agent.turn()]
        self.stage.check_use(self.scene, self.root, self.scene.allowed())
        agent.clock.wait(agent.pause())

    def check(self) -> None:
        """What the agent has said, and what is there at the end."""
        fault, scene = self.fault, self.scene
        said = set(self.codes) - {scene.code}
        if said != {CODES[fault.kind]} - {None}:
            raise Broken(f"codes: {said}")
        if len(self.stage.plane.enrolments) > self.starts:
            raise Broken(f"enrolled {len(self.stage.plane.enrolments)} times")
        if len({enrolment.key for enrolment in self.stage.plane.enrolments}) > 1:
            raise Broken("enrolled under several keys")
        self.stage.check_use(scene, self.root, {scene.ends})
        check_counters(self.stage.plane.bodies)
        self._check_reports()
        check_equal(Tree.load(self.root).image(), self.played.after)

    def _check_reports(self) -> None:
        """The last result is the right one; before it, the update was at most put off."""
        told = [told_of(body) for body in self.stage.plane.bodies]
        about = [report for report in told if report["assignment"] == ASSIGNMENT]
        if not about:
            raise Broken("nothing was reported")
        self.stage.check_reports(self.played, [json.dumps(about[-1]).encode()])
        for report in about:
            put_off = report["state"] == "deferred" and report["error"]["code"] in CODES.values()
            if not put_off and report["result"] != self.scene.result:
                raise Broken(f"reported: {report['result']} {report['error']}")


def withstand(stage: Stage, played: Played, fault: Fault) -> list[str]:
    """Raises Broken. Returns the names of the operations that were asked for."""
    with stage.place() as root:
        build(played.before.image(), root)
        trial = Trial(stage, played, fault, root)
        try:
            trial.run()
            trial.check()
        except Broken as broken:
            raise Broken(f"{played.scene.name}, {fault}: {broken}") from broken
        return trial.disk.operations


def _bytes_below(root: Path) -> int:
    """What files take, with something for their names."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return sum(path.lstat().st_size + SLACK_BYTES for path in files)
