"""What a real kill leaves is what the recording says that it leaves.

The matrix of crashes builds what an agent leaves that dies at a point from a recording of one that
does not. Here the real process, in its child too, is killed there by SIGKILL.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent import files
from tests.faults.conftest import IS_FULL
from tests.faults.crashes import Point, heard_at, points, state_at
from tests.faults.images import Image, Tree, build
from tests.faults.scenes import SCENES, offer
from tests.faults.stage import ASSIGNMENT, Played, Stage, check_counters, check_equal

DYING = Path(__file__).parent / "dying"
#: Real processes take a second for each point: so many are taken of all, so many of those in a
#: child, and the last one.
SAMPLE, SAMPLE_IN_CHILD = 2, 2
#: Modules that do their work in a child.
IN_CHILD = {"reconstitute.py", "undo.py"}
_PID = re.compile(rf"\.\d+{re.escape(files.SUFFIX)}$")
#: Times, and what is free, are never the same; a repeated report takes another counter.
_MOMENTARY = re.compile(rb'((?:started_at|seconds|free_bytes)\\*":)[-+.e\d]+')


def killed(stage: Stage, played: Played, point: Point, root: Path) -> int:
    """Run `edge-agent once` up to the point; its exit status."""
    bench = stage.bench(root, played.scene)
    dying = {
        "PYTHONPATH": os.pathsep.join([str(DYING), os.environ.get("PYTHONPATH", "")]),
        "DYING_ROOT": str(root),
        "DYING_COUNT": str(root.with_suffix(".count")),
        "DYING_AT": str(point.done),
        "DYING_HALF": "x" if point.half else "",
    }
    command = [sys.executable, "-m", "edge_agent.cli", "once"]
    done = subprocess.run(command, env=bench.environment | dying, capture_output=True)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done.returncode


def comparable(image: Image) -> dict[str, Any]:
    """Without what differs between two runs; of texts that break off, only that they are there."""
    return {_PID.sub("", str(path)): _plain(path, node) for path, node in image.items()}


def _plain(path: Path, node: Any) -> Any:
    if not isinstance(node, tuple) or ".json" not in path.name:
        return node
    data, mode = node
    return (_MOMENTARY.sub(rb"\g<1>0", data) if data.endswith(b"}") else None), mode


def chosen(played: Played) -> list[Point]:
    """Every second point, or some all over the update."""
    *every, last = points(played.noted)
    if IS_FULL:
        return [*every[::2], last]
    in_child = [
        point
        for point in every
        if IN_CHILD & {site.module for site in played.noted[point.done].sites}
    ]
    return [*_spread(every, SAMPLE), *_spread(in_child, SAMPLE_IN_CHILD), last]


def _spread(every: list[Point], count: int) -> list[Point]:
    return [every[len(every) * number // (count + 1)] for number in range(1, count + 1)]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["update", "update in place"])
def test_a_real_kill_leaves_what_the_recording_says(
    stage: Stage, name: str, note_tried: Callable[..., None]
) -> None:
    scene = SCENES[name]
    played = stage.play(scene)
    tried = chosen(played)
    for point in tried:
        with stage.place() as root:
            build(played.before.image(), root)
            stage.plane.bodies.clear()
            offer(stage.plane, stage.shelf, scene.offer, ASSIGNMENT)
            is_last = point.done == len(played.noted)
            assert killed(stage, played, point, root) == (0 if is_last else -signal.SIGKILL)
            asked = root.with_suffix(".count").stat().st_size
            assert asked == point.done + (not is_last)
            left = comparable(Tree.load(root).image())
            assert left == comparable(state_at(played, point).image()), str(point)
            least, most = heard_at(played, point)
            assert least <= len(stage.plane.bodies) <= most
            stage.rounds(stage.bench(root, scene), scene.offer, ASSIGNMENT)
            stage.check_use(scene, root, {scene.ends})
            stage.check_reports(played, stage.plane.bodies)
            check_counters(stage.plane.bodies)
            check_equal(Tree.load(root).image(), played.after)
    note_tried("real kills", scene.mode, points=len(tried))
