from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from benchmarks.ablation import choosing, report


def _row(variant: str, size: float, loss: float, model: int = 0) -> dict[str, Any]:
    return {
        "variant": variant,
        "model": model,
        "seed": 0,
        "bytes": size,
        "before": 0.7,
        "after": 0.71,
        "loss_before": 1.0,
        "loss_after": 1.0 + loss,
        "seconds": 10.0,
        "recipe": {"epochs": 4},
    }


def _curve(model: int, offset: float) -> list[dict[str, Any]]:
    """A loss of -0.03 per factor e of bytes."""
    sizes = {"sparse-600": 800, "sparse": 1600, "sparse-2400": 3200}
    return [_row(n, s, offset - 0.03 * math.log(s), model) for n, s in sizes.items()]


def test_bytes_are_compared_at_the_loss_that_the_curve_has_there() -> None:
    curves = report._curves(_curve(0, 0.1) + _curve(1, 0.2))
    for model, offset in ((0, 0.1), (1, 0.2)):
        half = _row("refit", 1000, offset - 0.03 * math.log(2000), model)
        assert report._times(half, curves) == pytest.approx(0.5)
    assert report._times(_row("refit", 1000, -0.1, model=2), curves) is None


def test_the_page_has_a_line_for_what_was_run() -> None:
    page = report.page([*_curve(0, 0.1), _row("refit", 2000, 0.1 - 0.03 * math.log(1000))])
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + 4
    assert "| 2.00 |" in lines[-1]


def test_a_symbol_stays_where_it_wins_more_than_it_costs() -> None:
    q = torch.tensor([1.0, 1.0, -1.0, 0.0])
    F, g = torch.full((4,), 2.0), torch.tensor([-3.0, -1.0, 3.0, 5.0])
    # Without it the loss is higher by -g q s + F s^2 / 2 = 4, 2, 4 at a step of 1.
    kept = choosing._kept(q, 1.0, F, g, torch.tensor(3.0))
    assert kept.tolist() == [1.0, 0.0, -1.0, 0.0]


def test_the_nearest_grid_point_is_left_where_it_is_too_dear() -> None:
    c, F = torch.tensor([0.8, 0.8, -1.4, 0.2]), torch.tensor([2.0, 0.1, 2.0, 2.0])
    chosen = choosing._nearest(c, 1.0, F, torch.tensor(0.3))
    assert chosen.tolist() == [1.0, 0.0, -1.0, 0.0]
