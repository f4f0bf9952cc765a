"""Who the commands work as: root becomes the owner of the state."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ASK = (
    "import os, sys; from pathlib import Path; from edge_agent.owner import become_owner;"
    "become_owner(Path(sys.argv[1])); print(*os.getresuid(), *os.getresgid(), *os.getgroups())"
)
is_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def who(directory: Path) -> list[int]:
    command = [sys.executable, "-c", ASK, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.split()]


@is_root
def test_root_becomes_the_owner_for_good(tmp_path: Path) -> None:
    os.chown(tmp_path, 54321, 54322)  # a user without a name
    assert who(tmp_path) == [54321] * 3 + [54322] * 3


@is_root
def test_and_a_member_of_its_groups(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)  # nobody
    assert who(tmp_path) == [65534] * 7


def test_nothing_changes_for_others(tmp_path: Path) -> None:
    me = [os.getuid()] * 3 + [os.getgid()] * 3
    assert who(tmp_path)[:6] == me
    assert who(tmp_path / "none")[:6] == me
