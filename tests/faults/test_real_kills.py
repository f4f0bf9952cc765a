"""What a real kill leaves is what the recording says that it leaves.

The other matrices build what an agent leaves that dies at a point from a recording of one that does
not. Here the real process, its children included, kills itself there.
"""

from __future__ import annotations

from tests.faults.stage import Stage


def test_there_is_a_stage(stage: Stage) -> None:
    assert stage
