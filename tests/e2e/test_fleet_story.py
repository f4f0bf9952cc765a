"""A bad version in a fleet of 40 simulated devices and two real agents, with real processes.

The demo `python -m demo.fleet` is the scenario; what it ends with is held against what must hold.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DEVICES = 42
FIRST_PHASE = 13  # 30% of them, rounded up


@pytest.fixture(scope="module")
def story(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The facts that the story ended with, and what it printed of history."""
    folder = tmp_path_factory.mktemp("fleet") / "story"
    command = [sys.executable, "-m", "demo.fleet", str(folder)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in "".join(log.read_text() for log in folder.glob("*.log"))
    return json.loads((folder / "facts.json").read_text()), done.stdout


def test_the_bad_version_is_stopped_before_the_second_phase(story: Any) -> None:
    bad = story[0]["bad"]
    assert (bad["state"], bad["phase"]) == ("aborted", 0)
    assert bad["reason"]["code"] == "too_many_failed"
    counts = bad["assignments"]
    assert counts["rolled_back"] >= 3
    assert sum(counts.values()) <= FIRST_PHASE


def test_devices_that_ran_it_are_rolled_back_without_a_byte(story: Any) -> None:
    facts = story[0]
    assert facts["back"]["assignments"].keys() == {"committed"}
    assert facts["back"]["assignments"]["committed"] >= facts["ran_bad"]
    assert facts["versions_after_rollback"] == {"1": DEVICES}
    assert {a["size_bytes"] for a in facts["back_assignments"]} <= {0}


def test_the_fixed_version_goes_through_all_phases(story: Any) -> None:
    good = story[0]["good"]
    assert (good["state"], good["phase"]) == ("finished", 2)
    assert good["assignments"] == {"committed": DEVICES}
    assert story[0]["versions_at_the_end"] == {"3": DEVICES}


def test_what_was_signed_without_the_release_key_reaches_no_device(story: Any) -> None:
    facts = story[0]
    assert facts["attack"]["state"] == "aborted"
    assert "committed" not in facts["attack"]["assignments"]
    assert set(facts["refused"]) == {"trust.not_released"}
    assert sum(facts["refused"].values()) >= 3


def test_history_tells_it(story: Any) -> None:
    facts, told = story
    said = [line.split()[1:3] for line in told.splitlines() if "rollout." in line]
    bad, good = str(facts["bad"]["id"]), str(facts["good"]["id"])
    assert [kind for rollout, kind in said if rollout == bad] == [
        "rollout.created",
        "rollout.started",
        "rollout.phase_started",
        "rollout.aborted",
    ]
    assert [kind for rollout, kind in said if rollout == good] == [
        "rollout.created",
        "rollout.started",
        *(["rollout.phase_started", "rollout.phase_done"] * 3),
        "rollout.finished",
    ]
