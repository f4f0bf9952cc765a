"""The child of a refinement: what it leaves, for every method, and however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.publish import spec
from server.publish.pipeline import refine_package_evaluate
from server.publish.spec import Result
from shared.decode import decode
from shared.methods import METHODS
from shared.package import PackageReader
from shared.weights import WeightsReader

OPTIONS: dict[str, dict[str, Any]] = {
    "ka": {"rank": 2},
    "ml": {"rank": 8},
    "ml_delta": {"rank": 4},
    "lra": {"rank": 8},
    "lru": {"rank": 4},
    "lora": {"rank": 4},
    "rm": {"proportion": 0.1},
    "sparse": {},
}


@pytest.mark.parametrize("method", METHODS)
def test_package_leads_from_the_base_to_the_weights_that_were_measured(
    refinement_folder: Any, base_weights: Path, tmp_path: Path, method: str
) -> None:
    folder = refinement_folder(method, OPTIONS.get(method), epochs=1)
    said: list[dict[str, Any]] = []
    result = refine_package_evaluate(folder, said.append)
    with (
        WeightsReader(base_weights) as base,
        PackageReader(folder / spec.PACKAGE) as package,
        (tmp_path / "decoded").open("w+b") as file,
    ):
        assert decode(base, package, file).hex() == result.result_digest
    assert (tmp_path / "decoded").read_bytes() == (folder / spec.DECODED).read_bytes()
    assert result == Result.model_validate_json((folder / spec.RESULT).read_bytes())
    assert result.package_bytes == (folder / spec.PACKAGE).stat().st_size
    assert [line["stage"] for line in said][-2:] == ["package", "evaluate"]
    assert set(result.metrics) >= {"accuracy_before", "accuracy_refined", "accuracy_after"}


def test_refinement_learns_and_the_decoded_weights_know_it(refinement_folder: Any) -> None:
    folder = refinement_folder("direct", epochs=6)
    metrics = refine_package_evaluate(folder, lambda _: None).metrics
    assert metrics["accuracy_before"] < 0.7
    assert metrics["accuracy_after"] > 0.9
    assert abs(metrics["accuracy_after"] - metrics["accuracy_refined"]) <= 0.07


def test_statistics_are_folded_and_kept_for_the_next_refinement(
    refinement_folder: Any, base_weights: Path
) -> None:
    folder = refinement_folder("ka", {"rank": 2}, epochs=1)
    refine_package_evaluate(folder, lambda _: None)
    with (
        WeightsReader(base_weights) as base,
        WeightsReader(folder / spec.DECODED) as new,
        WeightsReader(folder / spec.UNFOLDED) as kept,
    ):
        names = [name for name in base.schema if "running" in name]
        assert names
        assert all(np.array_equal(base.read(name), new.read(name)) for name in names)
        assert set(kept.schema) == set(names)


class Child:
    """The pipeline as the server starts it."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "server.publish.pipeline", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def progress(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield json.loads(line)

    def wait_for_epoch(self, epoch: int) -> None:
        assert any(line.get("epoch") == epoch for line in self.progress())

    def end(self) -> tuple[int, str]:
        """Exit status and stderr, once it has ended by itself; its stdin stays open until then."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.read()
        status, err = self.process.wait(), self.process.stderr.read()
        return status, err

    def close(self) -> None:
        """Kill it if it still runs, and close its pipes."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def start(refinement_folder: Any) -> Iterator[Callable[[Path], Child]]:
    started: list[Child] = []

    def start(folder: Path) -> Child:
        started.append(Child(folder))
        return started[-1]

    yield start
    for child in started:
        child.close()


def test_killed_child_goes_on_to_the_same_weights(refinement_folder: Any, start: Any) -> None:
    whole = refinement_folder("ka", {"rank": 2}, epochs=4)
    refine_package_evaluate(whole, lambda _: None)
    folder = refinement_folder("ka", {"rank": 2}, epochs=4)
    child = start(folder)
    child.wait_for_epoch(2)
    os.kill(child.process.pid, signal.SIGKILL)
    child.process.wait()
    again = start(folder)
    assert 1 not in [line.get("epoch") for line in again.progress()]
    assert again.end() == (0, "")
    assert (folder / spec.DECODED).read_bytes() == (whole / spec.DECODED).read_bytes()


def test_child_ends_with_its_stdin(refinement_folder: Any, start: Any) -> None:
    child = start(refinement_folder("ka", {"rank": 2}, epochs=100_000))
    child.wait_for_epoch(1)
    child.process.stdin.close()
    assert child.process.wait() == 3


def test_finished_folder_is_not_refined_again(refinement_folder: Any, start: Any) -> None:
    folder = refinement_folder("ka", {"rank": 2})
    (folder / spec.RESULT).write_text("{}")
    assert start(folder).end() == (0, "")


def test_failure_is_explained_in_the_folder(
    refinement_folder: Any, start: Any, tmp_path: Path
) -> None:
    folder = refinement_folder("ka", {"rank": 2})
    task = json.loads((folder / spec.SPEC).read_text())
    task["job"]["dataset"] = str(tmp_path / "gone.npz")
    (folder / spec.SPEC).write_text(json.dumps(task))
    status, log = start(folder).end()
    assert status == 1
    assert "gone.npz" in log
    error = json.loads((folder / spec.ERROR).read_text())
    assert error["code"] == "dataset.not_found"
    assert error["todo"]
