"""Real searches on a tiny model: what they leave, never too large, and how they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.publish import spec
from server.publish.budget.curve import Curve, read_curve
from server.publish.budget.run import Missed
from server.publish.pipeline import refine_package_evaluate
from shared.decode import decode
from shared.package import PackageReader
from shared.weights import WeightsReader

#: Of a package that changes nothing, for the tiny model.
LEAST = 330


class Stop(Exception):
    """Stands for whatever ends a process in the middle."""


def search(folder: Path, said: list[dict[str, Any]] | None = None) -> Curve:
    """Run the folder's search to its end, well or badly; its curve."""
    try:
        refine_package_evaluate(folder, (said if said is not None else []).append)
    except Missed:
        assert not (folder / spec.RESULT).exists()
    curve = read_curve(folder)
    assert curve is not None
    return curve


def test_chosen_package_is_that_of_a_trial_and_leads_to_what_was_measured(
    refinement_folder: Any, base_weights: Path, tmp_path: Path
) -> None:
    folder = refinement_folder("auto", {"max_bytes": 900, "trials": 3}, epochs=2)
    said: list[dict[str, Any]] = []
    result = refine_package_evaluate(folder, said.append)
    curve = read_curve(folder)
    assert curve is not None
    (chosen,) = [point for point in curve.points if point.chosen]
    assert chosen.bytes == result.package_bytes == (folder / spec.PACKAGE).stat().st_size <= 900
    assert chosen.accuracy_after == result.metrics["accuracy_after"]
    assert (chosen.method, chosen.options) == (
        result.method,
        {name: result.options[name] for name in chosen.options},
    )
    with (
        WeightsReader(base_weights) as base,
        PackageReader(folder / spec.PACKAGE) as package,
        (tmp_path / "decoded").open("w+b") as file,
    ):
        assert package.header.method.partition("/")[0] == chosen.method
        assert decode(base, package, file).hex() == result.result_digest
    assert (tmp_path / "decoded").read_bytes() == (folder / spec.DECODED).read_bytes()
    trained = len({point.trial for point in curve.points})
    assert (curve.epochs, curve.refinements) == (2 * trained, trained)
    told = [(line["trial"], line["trials"]) for line in said if "trial" in line]
    assert told == sorted(told)
    assert told[-1] == (trained, 3)
    assert said[-1]["curve"]["points"][0]["bytes"] == curve.points[0].bytes


def test_no_package_is_larger_than_asked_for(refinement_folder: Any) -> None:
    draw = np.random.default_rng(5)
    sizes = [LEAST + 1, *draw.integers(LEAST, 1900, 3).tolist()]
    for size in sizes:
        folder = refinement_folder("auto", {"max_bytes": size, "trials": 1}, epochs=1)
        curve = search(folder)
        assert curve.failure is None, curve.failure
        assert (folder / spec.PACKAGE).stat().st_size <= size


def test_a_size_below_an_empty_package_is_refused_before_any_training(
    refinement_folder: Any,
) -> None:
    said: list[dict[str, Any]] = []
    curve = search(refinement_folder("auto", {"max_bytes": 100}), said)
    assert curve.failure is not None
    assert curve.failure.code == "refinement.too_few_bytes"
    assert str(curve.least_bytes) in curve.failure.message
    assert curve.points == []
    assert [line for line in said if "epoch" in line] == []


def test_an_accuracy_that_is_missed_publishes_nothing_and_keeps_the_curve(
    refinement_folder: Any,
) -> None:
    goal = {"min_accuracy": 100, "max_bytes": 400, "trials": 2}
    curve = search(refinement_folder("auto", goal, epochs=1))
    assert curve.failure is not None
    assert curve.failure.code == "refinement.accuracy_not_reached"
    best = max(point.accuracy_after for point in curve.points if point.bytes <= 400)
    assert f"{best:.2%}" in curve.failure.message
    assert not any(point.chosen for point in curve.points)


def test_an_accuracy_is_reached_by_the_smallest_that_does(refinement_folder: Any) -> None:
    curve = search(refinement_folder("auto", {"min_accuracy": 60, "trials": 3}, epochs=4))
    (chosen,) = [point for point in curve.points if point.chosen]
    assert chosen.accuracy_after >= 0.6
    assert chosen.bytes == min(p.bytes for p in curve.points if p.accuracy_after >= 0.6)


def test_an_interrupted_search_goes_on_without_repeating_a_trial(refinement_folder: Any) -> None:
    goal = {"max_bytes": 900, "trials": 2}
    whole = refinement_folder("auto", goal, epochs=1)
    search(whole)
    folder = refinement_folder("auto", goal, epochs=1)

    def stop(line: dict[str, Any]) -> None:
        if line.get("trial") == 2:
            raise Stop

    with pytest.raises(Stop):
        refine_package_evaluate(folder, stop)
    said: list[dict[str, Any]] = []
    search(folder, said)
    assert {line["trial"] for line in said if "epoch" in line} == {2}
    assert (folder / spec.DECODED).read_bytes() == (whole / spec.DECODED).read_bytes()


def test_another_head_counts(refinement_folder: Any) -> None:
    folder = refinement_folder("auto", {"max_bytes": 1300, "trials": 2}, epochs=1)
    task = json.loads((folder / spec.SPEC).read_text())
    task["job"]["target_arguments"] = {"classes": 5}
    (folder / spec.SPEC).write_text(json.dumps(task))
    assert search(folder).failure is None
    assert (folder / spec.PACKAGE).stat().st_size <= 1300
    with WeightsReader(folder / spec.DECODED) as decoded:
        assert decoded.schema["9.weight"].shape[0] == 5


def test_golden_samples_count(refinement_folder: Any) -> None:
    folder = refinement_folder("auto", {"max_bytes": 700, "trials": 1}, epochs=1, golden=4)
    assert search(folder).failure is None
    with PackageReader(folder / spec.PACKAGE) as package:
        assert package.header.golden is not None
    assert (folder / spec.PACKAGE).stat().st_size <= 700


def test_one_teacher_serves_all_trials(refinement_folder: Any) -> None:
    goal = {"max_bytes": 900, "trials": 2}
    said: list[dict[str, Any]] = []
    search(refinement_folder("auto", goal, epochs=1, distillation=0.5), said)
    epochs = [(line["stage"], line["trial"]) for line in said if "epoch" in line]
    assert epochs == [("teach", 1), ("refine", 1), ("refine", 2)]
