"""What every test stands on: fixed seeds, no network but loopback (see pyproject.toml)."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest

# The same examples in every run: a failure seen in CI is the failure seen at the desk.
hypothesis.settings.register_profile("weft", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("weft")


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # for libraries that draw from the global generator
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the working tree."""
    return Path(__file__).resolve().parent.parent
