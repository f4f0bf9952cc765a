"""What others on a device may read: weights and what is no secret; never a token or a key."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

SECRET = {"identity.json", "device.key"}


@pytest.fixture
def anything_goes() -> Any:
    """A user whose new files everybody may read and write."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_secrets_are_their_owners_alone(
    bench: Any, plane: Any, shelf: Any, anything_goes: None
) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    assert bench.round() == []
    found = [path for path in Path(bench.config.state_dir).rglob("*") if path.is_file()]
    assert {path.name for path in found} >= SECRET
    for path in found:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & stat.S_IWOTH == 0, path
        if path.name in SECRET:
            assert mode == 0o600, path
        else:
            assert plane.token.encode() not in path.read_bytes(), path
