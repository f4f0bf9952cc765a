from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.layers import report
from benchmarks.layers.__main__ import FAMILIES, NAMES
from benchmarks.lift.candidates import candidates
from benchmarks.lift.claim import claim, has_dense
from shared import methods


def _row(family: str, size: float, points: float, model: int = 0) -> dict[str, Any]:
    told = {"family": family, "bytes": size, "before": 0.9, "after": 0.9 + points / 100}
    return {**told, "model": model, "seed": 0, "recipe": {"epochs": 2}}


ROWS = [
    _row("control", 900, 0.5),
    _row("sparse-300", 500, 1.0),
    _row("sparse-1200", 2000, 5.0),
    _row("lora-1", 6000, 3.5),
    _row("lora-1-alone", 4000, 2.0),
    _row("lora-4-alone", 16000, 2.5),
    _row("dense", 100_000, 6.0),
]


def test_every_family_can_be_asked_for() -> None:
    for candidate in (c for family in FAMILIES for c in candidates(family)):
        methods.options(methods.get(candidate.method), candidate.options)


def test_without_a_dense_run_there_is_nothing_to_tell() -> None:
    assert has_dense(ROWS)
    assert not has_dense(ROWS[:-1])


def test_half_of_the_lift_is_looked_for_on_each_kinds_curve() -> None:
    told = claim(ROWS)
    assert (told.wanted, told.limit) == (pytest.approx(3.0), pytest.approx(2000))
    sparse, lora, alone = (told.needs[kind] for kind in ("sparse", "lora", "lora alone"))
    assert sparse.bytes == pytest.approx(1000)
    assert sparse.exactly
    assert (lora.bytes, lora.exactly) == (6000, False)
    assert alone.bytes is None


def test_the_page_tells_what_is_needed_and_what_is_not_reached(tmp_path: Path) -> None:
    found = dict.fromkeys(NAMES, ROWS)
    page = report.page(found)
    assert "`sparse` has it in 1,000 bytes: **1.00%**" in page
    assert "`lora` has it in at most 6,000 bytes: **6.00%**" in page
    assert "`lora alone` does not reach it" in page
    report.plot(found, tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
