"""A disk that is full, broken or read-only stops an update, and nothing else.

At each operation of a recorded update the disk fails, once or until it is repaired. Meanwhile a
program finds wholly the old or wholly the new weights, and the agent says what is wrong; when the
disk works again, the same agent, or one that is started then, ends where it should.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent import files
from shared.errors import NoSpace
from tests.faults.failing import FailingDisk
from tests.faults.stage import using


@pytest.mark.parametrize(("kind", "code"), [("ENOSPC", "no_space"), ("EROFS", "unusable")])
def test_an_error_of_the_disk_has_a_code(tmp_path: Path, kind: str, code: str) -> None:
    with using(FailingDisk(kind, 0, lasts=True)), pytest.raises(NoSpace) as caught:
        files.write(tmp_path / "x", b"x")
    assert caught.value.code == f"storage.{code}"
    assert list(tmp_path.iterdir()) == []
