"""What a package weighs beside its symbols."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from server.packaging.encode import build_package
from server.zoo import get as architecture
from shared.weights import WeightsReader


@pytest.fixture
def vgg_small(tmp_path: Path) -> tuple[Path, Path]:
    """Base and retrained weights, as a training script would save them."""
    module = architecture("vgg_small").build({"classes": 10})
    paths = tmp_path / "base", tmp_path / "target"
    for path in paths:
        safetensors.torch.save_file(module.state_dict(), path)
        with torch.no_grad():
            for tensor in module.state_dict().values():
                if tensor.is_floating_point():
                    tensor += 0.01 * torch.rand(tensor.shape)
    return paths


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ka", {"rank": 3}),
        ("rm", {"proportion": 0.1}),
        ("direct", {}),
        ("xor", {}),
    ],  # `full` brings a schema as well
)
def test_the_container_takes_300_bytes_and_two_a_tensor_at_most(
    vgg_small: tuple[Path, Path], tmp_path: Path, method: str, options: dict[str, Any]
) -> None:
    base, target = vgg_small
    report = build_package(base, target, method, options, tmp_path / "package", "vgg_small")
    tensors = len(report.tensors)
    assert tensors == 37
    assert report.container_bytes <= 300 + 2 * tensors
    assert report.size == (tmp_path / "package").stat().st_size


def test_ka_learns_what_the_paper_counts_and_sends_bytes_for_it(
    vgg_small: tuple[Path, Path], tmp_path: Path
) -> None:
    base, target = vgg_small
    report = build_package(base, target, "ka", {"rank": 3}, tmp_path / "package", "vgg_small")
    assert report.learnable_count == 7_413  # running statistics are sent here, and not counted
    assert report.size < 12_000 < base.stat().st_size / 40


def test_steps_and_plans_take_three_bytes_a_tensor(
    vgg_small: tuple[Path, Path], tmp_path: Path
) -> None:
    base, target = vgg_small
    options = {"proportion": 0.1}
    report = build_package(base, target, "rm", options, tmp_path / "package", "m")
    with WeightsReader(base) as weights:
        floats = sum(np.issubdtype(weights.read(n).dtype, np.floating) for n in weights.schema)
    symbols = sum(t.symbols for t in report.tensors.values())
    assert report.size <= 300 + 3 * floats + symbols + 100
