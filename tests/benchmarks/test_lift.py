from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import keeping
from benchmarks.lift import protocol, report
from benchmarks.lift.__main__ import FAMILIES, families
from benchmarks.lift.candidates import Candidate, at_rate, candidates, tuned_as
from benchmarks.lift.choice import chosen
from benchmarks.lift.figures import Figure, bytes_at, figures, ratio
from benchmarks.lift.settings import COMMON, SETTINGS
from server import zoo
from server.refine.recipe import Recipe
from shared import methods


def _row(family: str, size: float, points: float, model: int = 0, seed: int = 0) -> dict[str, Any]:
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


def test_a_page_shows_the_runs_of_its_own_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "RUNS", tmp_path)
    for at, command in enumerate(("make bench-lift", "make bench-paper", "make bench-lift")):
        keeping.keep(tmp_path / "vgg_tiny" / f"test-{at}.json", {"bytes": at}, command)
    keeping.keep(tmp_path / "vgg_tiny" / "tune-3.json", {"bytes": 3}, "make bench-lift")
    assert [r["bytes"] for r in protocol.Protocol(SETTINGS["vgg_tiny"]).measured()] == [0, 2]


def test_every_setting_is_a_model_of_the_zoo_and_recipes_that_are_valid() -> None:
    for name, setting in SETTINGS.items():
        assert setting.name == name
        zoo.get(setting.architecture).build(setting.arguments)
        Recipe.model_validate({**COMMON, **setting.initial})
        Recipe.model_validate({**COMMON, **setting.recipe})
        assert 0 < setting.deployed < setting.rows - setting.held_out


def test_every_candidate_is_a_refinement_that_can_be_asked_for_and_has_its_own_name() -> None:
    for setting in FAMILIES:
        own = [c for family in families(setting) for c in candidates(family)]
        for candidate in own:
            methods.options(methods.get(candidate.method), candidate.options)
        assert len({c.name for c in own}) == len(own)
    with pytest.raises(ValueError, match="no family"):
        candidates("magic-3")


def test_the_papers_updates_are_counted_as_floats_and_not_rounded() -> None:
    paper, packed = candidates("ka-3")[0], candidates("ka-3-5bit")[0]
    assert paper.bytes(7000, 7413) == 29652
    assert paper.recipe["rounding"] == 0
    assert packed.bytes(7000, 7413) == 7000
    assert packed.options == {"rank": 3, "bits": 5}


def test_matrices_alone_are_a_family_of_their_own_at_the_rates_of_the_others() -> None:
    alone, whole = candidates("lora-2-alone")[0], candidates("lora-2")[0]
    assert alone.recipe == {**whole.recipe, "vectors": False}
    assert alone.options == whole.options
    assert tuned_as("lora-4-alone") == "lora-2"
    assert Figure("lora-4-alone", 1, 1, 0, 1).kind == "lora alone"


def test_the_best_on_held_out_rows_is_chosen_once_for_all_sizes_of_a_method() -> None:
    tried = []
    own = candidates("sparse-1200")
    best = own[1].recipe["learning_rate"]

    def tune(candidate: Candidate) -> dict[str, Any]:
        tried.append(candidate.name)
        return _row(candidate.family, 1, -abs(candidate.recipe["learning_rate"] - best))

    found = chosen(["control", "sparse-600", "sparse-2400"], tune)
    assert tried == [candidate.name for candidate in own]
    assert found["control"] == candidates("control")[0]
    assert found["sparse-600"] == at_rate("sparse-600", best)
    assert tuned_as("sparse-600") == "sparse-1200"
    assert tuned_as("sparse-4000-taught") == "sparse-6000"
    assert tuned_as("ka-1-4bit") == "ka-3-4bit"


def test_where_an_end_of_the_grid_does_best_it_goes_on() -> None:
    tried = []

    def tune(candidate: Candidate) -> dict[str, Any]:
        tried.append(candidate.recipe["learning_rate"])
        return _row(candidate.family, 1, -abs(candidate.recipe["learning_rate"] - 0.08))

    assert chosen(["ka-1"], tune)["ka-1"] == at_rate("ka-1", 0.09)
    assert tried == [0.00333, 0.01, 0.03, 0.09, 0.27]


def test_a_figure_is_a_mean_with_its_interval() -> None:
    (figure,) = figures([_row("a", 100, 1.0), _row("a", 200, 2.0, seed=1), _row("a", 300, 3.0, 1)])
    assert figure.bytes == 200
    assert figure.lift == pytest.approx(2.0)
    assert figure.half == pytest.approx(4.30 / math.sqrt(3))


def test_sizes_of_a_method_are_one_curve_but_bits_are_another() -> None:
    kinds = [Figure(name, 1, 0, 0, 1).kind for name in ("ka-1", "ka-3", "ka-3-4bit", "control")]
    assert kinds == ["ka", "ka", "ka 4bit", "control"]


def test_bytes_are_interpolated_in_their_logarithm() -> None:
    curve = [Figure("s", 4000, 3.0, 0, 1), Figure("s", 1000, 1.0, 0, 1)]
    assert bytes_at(curve, 2.0) == pytest.approx(2000)
    assert bytes_at(curve, 3.0) == pytest.approx(4000)
    assert bytes_at(curve, 3.1) is None
    assert bytes_at([], 1.0) is None
    dip = Figure("s", 3000, 0.5, 0, 1)  # nobody would send it
    assert bytes_at([*curve, dip], 2.0) == pytest.approx(2000)


def _sides(lifts: list[float]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    theirs = [_row("ka-3", 30000, points, seed=seed) for seed, points in enumerate(lifts)]
    ours = [
        _row(family, size, points, seed=seed)
        for seed in range(len(lifts))
        for family, size, points in (("sparse-600", 1000, 1.0), ("sparse-2400", 4000, 3.0))
    ]
    return theirs, ours


def test_a_ratio_comes_with_its_interval_over_pairs() -> None:
    found = ratio(*_sides([1.5, 2.0, 2.5]))
    assert found is not None
    assert found.ours == pytest.approx(2000)
    assert found.times == pytest.approx(15)
    assert found.least < 15 < found.most
    same = ratio(*_sides([2.0, 2.0]))
    assert same is not None
    assert (same.least, same.most) == pytest.approx((15, 15))


def test_a_ratio_takes_only_pairs_that_all_ran_with() -> None:
    theirs, ours = _sides([2.0])
    theirs += [_row("ka-3", 30000, 2.9, seed=7)]
    ours += [_row("sparse-600", 1000, 9.0, seed=7)]
    found = ratio(theirs, ours)
    assert found is not None
    assert found.times == pytest.approx(15)
    assert found.pairs == 1


def test_an_interval_counts_draws_that_miss_the_lift_against_ours() -> None:
    theirs, ours = _sides([2.0, 3.5])  # drawn twice, the second is beyond the curve
    found = ratio(theirs, ours)
    assert found is not None
    assert found.least == 0
    assert "not reached to 1/" in report.spread(found)
    assert ratio(ours, theirs, 1.0) is None


def test_a_ratio_at_a_lift_is_of_two_curves() -> None:
    _, ours = _sides([0.0, 0.0])
    theirs = [row | {"bytes": 8 * row["bytes"]} for row in ours]
    found = ratio(theirs, ours, 2.0)
    assert found is not None
    assert (found.theirs, found.ours) == pytest.approx((16000, 2000))
    assert (found.least, found.most) == pytest.approx((8, 8))
    assert ratio(theirs, ours, 3.1) is None


def test_the_page_says_what_part_of_the_papers_bytes_is_needed() -> None:
    rows = [*_sides([2.0])[0], *_sides([2.0])[1]]
    assert "at 2,000 bytes: **1/15.0**" in report.page({"vgg_small": rows})
    assert "does not span" in report.page({"vgg_small": rows[:2]})
