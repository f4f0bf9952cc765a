"""`auto` as operators meet it: a real server, its child processes, and the command `weft`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from server.cli import run
from server.cli.commands import app

URL = "/api/v1/refinements"
WORDS = ["digits", "--dataset", "bright", "--recipe", "threads=1", "--epochs", "1"]


def weft(plant: Any, *words: object) -> int:
    return run(app, [*map(str, words), "--server", plant.server.url])


def test_a_budget_becomes_a_version_whose_package_fits(
    plant: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--method", "auto", "--max-bytes", 900, "--option", "trials=2")
    assert weft(plant, "refine", *WORDS, *asked) == 0
    shown = capsys.readouterr().out
    done = plant.ask("GET", f"{URL}/1")
    assert (done["state"], done["target"]) == ("succeeded", 2)
    assert done["method"] == {
        "id": "auto",
        "options": {"max_bytes": 900, "min_accuracy": None, "trials": 2},
    }
    package = plant.ask("GET", f"/api/v1/packages/{done['package_id']}")
    assert package["size_bytes"] <= 900

    curve = plant.ask("GET", f"{URL}/1/curve")
    (chosen,) = [point for point in curve["points"] if point["chosen"]]
    assert (chosen["bytes"], chosen["method"]) == (package["size_bytes"], package["method"])
    assert curve["refinements"] <= 2
    assert "2 refinements" in shown
    assert str(chosen["bytes"]) in shown

    picture = plant.http.get(f"{URL}/1/curve.svg")
    assert picture.headers["content-type"] == "image/svg+xml"
    assert ElementTree.fromstring(picture.text).tag.endswith("svg")  # noqa: S314 - our own text
    assert weft(plant, "refinements", "curve", 1, "--plot", tmp_path / "curve.svg", "--json") == 0
    assert json.loads(capsys.readouterr().out) == curve
    assert (tmp_path / "curve.svg").read_text() == picture.text


def test_a_missed_accuracy_fails_with_the_curve(
    plant: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--method", "auto", "--min-accuracy", 100, "--option", "trials=1")
    assert weft(plant, "refine", *WORDS, *asked) == 1
    shown = capsys.readouterr()
    assert "refinement.accuracy_not_reached" in shown.err
    assert "nothing published" in shown.out
    done = plant.ask("GET", f"{URL}/1")
    assert (done["state"], done["target"], done["attempts"]) == ("failed", None, 1)
    curve = plant.ask("GET", f"{URL}/1/curve")
    assert curve["failure"] == done["error"]
    assert len(curve["points"]) == 1


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, "refinement.bad_goal"),
        ({"max_bytes": 0}, "refinement.bad_goal"),
        ({"max_bytes": 900, "rank": 2}, "refinement.bad_goal"),
    ],
)
def test_a_goal_that_cannot_be_meant_is_refused_at_once(
    plant: Any, options: dict[str, Any], code: str
) -> None:
    method = {"id": "auto", "options": options}
    answer = plant.http.post(URL, json=plant.order() | {"method": method})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert plant.ask("GET", URL)["items"] == []


def test_a_budget_goes_with_auto_alone(plant: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert weft(plant, "refine", *WORDS, "--method", "direct", "--max-bytes", 900, "--json") == 1
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "command.invalid"
    assert plant.http.get(f"{URL}/1/curve").json()["code"] == "refinement.not_found"


def test_other_refinements_have_no_curve(plant: Any) -> None:
    plant.refine("direct", recipe={"epochs": 100_000, "threads": 1})
    answer = plant.http.get(f"{URL}/1/curve")
    assert (answer.status_code, answer.json()["code"]) == (404, "refinement.no_curve")
    plant.ask("POST", f"{URL}/1/cancel")
