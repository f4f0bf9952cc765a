"""Packaging tests factor many small matrices: threads would only wait for each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import threadpoolctl
import torch


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpoolctl.threadpool_limits(1):
        yield
    torch.set_num_threads(before)
