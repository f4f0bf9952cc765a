from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.lift import report
from benchmarks.lift.candidates import Candidate, grid
from benchmarks.lift.choice import chosen
from benchmarks.lift.figures import Figure, bytes_at, figures
from shared import methods


def _row(family: str, size: int, points: float, model: int = 0, seed: int = 0) -> dict[str, Any]:
    return {
        "family": family,
        "bytes": size,
        "before": 0.75,
        "after": 0.75 + points / 100,
        "model": model,
        "seed": seed,
        "seconds": 60.0,
        "recipe": {"epochs": 20},
    }


def test_every_candidate_is_a_refinement_that_can_be_asked_for_and_has_its_own_name() -> None:
    candidates = [c for family in grid().values() for c in family]
    for candidate in candidates:
        methods.options(methods.get(candidate.method), candidate.options)
    assert len({c.name for c in candidates}) == len(candidates)
    assert all(c.family == family for family, own in grid().items() for c in own)


def test_the_papers_updates_are_counted_as_floats() -> None:
    (paper, *_), (packed, *_) = grid()["ka-3"], grid()["ka-3-5bit"]
    assert paper.bytes(7000, 7413) == 29652
    assert packed.bytes(7000, 7413) == 7000


def test_the_best_on_held_out_rows_is_chosen_and_a_single_one_is_not_tried() -> None:
    families = {
        "a": [Candidate("a", "ka", recipe={"learning_rate": rate}) for rate in (0.1, 0.2, 0.3)],
        "b": [Candidate("b", "direct")],
    }
    tried = []

    def tune(candidate: Candidate) -> dict[str, Any]:
        tried.append(candidate.name)
        return _row(candidate.family, 1, -abs(candidate.recipe["learning_rate"] - 0.2))

    best = chosen(families, tune)
    assert best["a"].recipe == {"learning_rate": 0.2}
    assert tried == ["a-l0.1", "a-l0.2", "a-l0.3"]


def test_a_figure_is_a_mean_with_its_interval() -> None:
    (figure,) = figures([_row("a", 100, 1.0), _row("a", 200, 2.0, seed=1), _row("a", 300, 3.0, 1)])
    assert figure.bytes == 200
    assert figure.lift == pytest.approx(2.0)
    assert figure.half == pytest.approx(4.30 / math.sqrt(3))


def test_bytes_are_interpolated_in_their_logarithm() -> None:
    curve = [Figure("s", 4000, 3.0, 0, 1), Figure("s", 1000, 1.0, 0, 1)]
    assert bytes_at(curve, 2.0) == pytest.approx(2000)
    assert bytes_at(curve, 3.0) == pytest.approx(4000)
    assert bytes_at(curve, 3.1) is None
    assert bytes_at([], 1.0) is None


def test_the_page_says_what_part_of_the_papers_bytes_is_needed() -> None:
    rows = [
        _row("ka-3", 30000, 2.0),
        _row("sparse-600", 1000, 1.0),
        _row("sparse-2400", 4000, 3.0),
    ]
    assert "at 2,000 bytes: 1/15.0" in report.page(rows)
    assert "does not reach" in report.page(rows[:2])
