"""Refinements as operators and dashboards meet them: the real app, real children."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.cli import run
from server.cli.commands import app
from shared.decode import decode
from shared.package import PackageReader
from shared.weights import WeightsReader

URL = "/api/v1/refinements"


def test_refinement_becomes_a_version_and_a_package(plant: Any, tmp_path: Path) -> None:
    accepted = plant.refine()
    assert (accepted["state"], accepted["base"]) == ("queued", 1)
    seen = list(plant.follow(accepted))
    done = seen[-1]
    assert (done["state"], done["error"], done["target"]) == ("succeeded", None, 2)
    stages = {entry["progress"]["stage"] for entry in seen if entry["progress"]}
    assert stages <= {"refine", "package", "evaluate"}
    assert plant.ask("GET", f"{URL}/{done['id']}") == done

    version = plant.ask("GET", "/api/v1/models/digits/versions/2")
    package = plant.ask("GET", f"/api/v1/packages/{done['package_id']}")
    assert (version["source"], version["parent"]) == ("refined", 1)
    assert (package["base"], package["target"], package["method"]) == (1, 2, "ka")
    assert version["metrics"]["accuracy"] == package["metrics"]["accuracy_after"]
    assert package["size_bytes"] < version["size_bytes"]

    base = plant.download("/api/v1/models/digits/versions/1/weights", tmp_path / "base")
    weft = plant.download(f"/api/v1/packages/{package['id']}/content", tmp_path / "weft")
    with (
        WeightsReader(base) as old,
        PackageReader(weft) as update,
        (tmp_path / "new").open("w+b") as file,
    ):
        assert decode(old, update, file).hex() == version["weights_digest"]

    events = plant.ask("GET", f"/api/v1/events?refinement_id={done['id']}&order=oldest")["items"]
    assert [event["kind"] for event in events] == [
        "refinement.queued",
        "refinement.started",
        "package.published",
        "refinement.succeeded",
    ]
    assert events[0]["data"] == {"method": "ka", "base": 1}


def weft(plant: Any, *words: str) -> int:
    """`weft refine` on the plant's server; its exit status."""
    order = ["refine", "digits", "--dataset", "bright", "--epochs", "2", "--recipe", "threads=1"]
    return run(app, [*order, *words, "--json", "--server", plant.server.url])


def test_next_refinement_starts_from_the_refined_version(
    plant: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (2, 3):
        assert weft(plant, "--method", "direct") == 0
        done = json.loads(capsys.readouterr().out)
        assert (done["state"], done["target"]) == ("succeeded", number)
    assert plant.ask("GET", "/api/v1/models/digits/versions/3")["parent"] == 2


def test_cancel_ends_it_and_publishes_nothing(plant: Any) -> None:
    slow = plant.refine(recipe={"epochs": 100_000, "threads": 1})
    waiting = plant.refine()
    for entry in plant.follow(slow):
        if entry["progress"]:
            break
    for refinement in (waiting, slow):
        answer = plant.ask("POST", f"{URL}/{refinement['id']}/cancel")
        assert answer["state"] == "cancelled"
        (*_, last) = plant.follow(refinement)
        assert last["state"] == "cancelled"
    again = plant.http.post(f"{URL}/{slow['id']}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "refinement.not_cancellable")
    listed = plant.ask("GET", "/api/v1/models/digits/versions")["items"]
    assert [version["number"] for version in listed] == [1]


def test_lost_data_fail_the_refinement_with_what_to_do(
    plant: Any, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = images.with_name("lost.npz")
    lost.write_bytes(images.read_bytes())
    plant.ask("POST", "/api/v1/datasets", json={"name": "lost", "uri": str(lost)})
    lost.unlink()
    assert weft(plant, "--method", "direct", "--dataset", "lost") == 1
    told = capsys.readouterr()
    done, error = json.loads(told.out), json.loads(told.err)["error"]
    assert (done["state"], done["attempts"], done["error"]) == ("failed", 1, error)
    assert error["code"] == "dataset.not_found"
    assert error["todo"]


def test_same_key_is_the_same_refinement(plant: Any) -> None:
    request = {"json": plant.order(), "headers": {"Idempotency-Key": "once"}}
    first, second = (plant.http.post(URL, **request) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert len(plant.ask("GET", URL)["items"]) == 1


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"model": "other"}, 404, "model.not_found"),
        ({"base": 7}, 404, "version.not_found"),
        ({"dataset": "other"}, 404, "dataset.not_found"),
        ({"evaluation_dataset": "other"}, 404, "dataset.not_found"),
        ({"method": {"id": "magic"}}, 422, "method.unknown"),
        ({"method": {"id": "ka"}}, 422, "method.bad_option"),
        ({"recipe": {"epochs": 0}}, 422, "refinement.bad_recipe"),
        ({"recipe": {"magic": 1}}, 422, "refinement.bad_recipe"),
        ({"surprise": 1}, 422, "request.invalid"),
    ],
)
def test_bad_order_is_refused_at_once(
    plant: Any, changes: dict[str, Any], status: int, code: str
) -> None:
    answer = plant.http.post(URL, json=plant.order(**changes))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert plant.ask("GET", URL)["items"] == []


def test_server_goes_on_with_what_a_stopped_one_began(plant: Any, serve: Any, images: Path) -> None:
    begun = plant.refine(recipe={"epochs": 3, "batch_size": 2, "threads": 1})
    for entry in plant.follow(begun):
        if entry["progress"] and entry["progress"].get("epoch", 0) > 1:
            break
    plant.server.stop()
    again = serve(dataset_roots=(str(images.parent),))
    plant.http = again.client
    (*_, done) = plant.follow(begun)
    assert (done["state"], done["attempts"]) == ("succeeded", 1), done["error"]
