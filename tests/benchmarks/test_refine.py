"""`make bench-refine`: ratios of steps that followed each other, and the page made of them."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import refine


def _row(method: str, rounded: float) -> dict[str, Any]:
    seconds = {"dense": [1.0, 2.0, 4.0], "plain": [1.1, 2.2, 4.4], "rounded": [rounded, 2.6, 4.0]}
    options = {"rank": 3}
    return {
        "model": "resnet18",
        "method": method,
        "options": options,
        "precision": "float32",
        "device": "cpu, one thread",
        "seconds": seconds,
    }


def test_a_ratio_is_of_medians_and_its_spread_of_neighbours() -> None:
    seconds = _row("ka", 1.5)["seconds"]
    assert refine.ratio(seconds, "plain") == pytest.approx((1.1, 1.1, 1.1))
    assert refine.ratio(seconds, "rounded") == pytest.approx((1.3, 1.0, 1.5))


def test_the_page_says_what_is_above_the_limit() -> None:
    page = refine.page([_row("ka", 1.5), _row("rm", 1.5)])
    assert "the highest ratio here is 1.30, **not met**" in page
    assert "resnet18 in float32 (7 of 9)" in page
    assert "| `rm` 3 | 2,000 ms | 1.10 (1.10 to 1.10) | 1.30 (1.00 to 1.50) | 3 |" in page


def test_steps_of_each_kind_are_taken_in_turn() -> None:
    row = refine.run("vgg_tiny", "ka", "bfloat16", steps=1)
    assert {kind: len(times) for kind, times in row["seconds"].items()} == dict.fromkeys(
        refine.KINDS, 1
    )
    assert min(min(times) for times in row["seconds"].values()) > 0
