from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.runtimes.contract import Place


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if marked and not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="torch finds no CUDA device"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A model's directory, with nothing in it yet."""
    return Place(tmp_path / "digits")
