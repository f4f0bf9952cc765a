from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtimes.contract import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A model's directory, with nothing in it yet."""
    return Place(tmp_path / "digits")
