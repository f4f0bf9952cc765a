"""Data, initial models and runs."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.lift.candidates import Candidate
from benchmarks.measure import machine
from server.publish import spec
from server.publish.pipeline import refine_package_evaluate
from server.refine.initial import train_initial
from server.refine.recipe import Recipe
from server.refine.weights import save_state
from server.registry.opening import open_dataset

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "benchmarks" / "results" / "lift"
WORK = ROOT / "var" / "bench" / "lift"
DATA = Path(os.environ.get("WEFT_DATA", ROOT.parent / "shared" / "data"))
TRAIN, TEST = DATA / "cifar10-train.parquet", DATA / "cifar10-test.parquet"

ARCHITECTURE = "vgg_small"
#: 75 to 76% on the test set.
FIRST = {"epochs": 40, "crop": 4, "flip": True, "held_out": 0.0, "threads": 1}
RECIPE = {"crop": 2, "flip": True, "held_out": 0.0, "threads": 1}
TUNING_EPOCHS, EPOCHS = 8, 20

DEPLOYED = f"{TRAIN}#rows=0:10000"
TUNED_ON, HELD_OUT = f"{TRAIN}#rows=0:45000", f"{TRAIN}#rows=45000:50000"


def initial(number: int) -> Path:
    """An initial model, as deployed; trained where it is not there yet."""
    path = WORK / f"initial-{number}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        recipe = Recipe.model_validate({**FIRST, "seed": number})
        save_state(path, train_initial(ARCHITECTURE, {}, open_dataset(DEPLOYED), recipe, _tell))
    return path


def tune(candidate: Candidate) -> dict[str, Any]:
    """A short training on a part of the training rows, judged on the others."""
    return _run("tune", candidate, 0, 0, TUNING_EPOCHS, TUNED_ON, HELD_OUT)


def measure(candidate: Candidate, model: int, seed: int) -> dict[str, Any]:
    """A full training, judged on the test set."""
    return _run("test", candidate, model, seed, EPOCHS, str(TRAIN), str(TEST))


def _run(
    stage: str, candidate: Candidate, model: int, seed: int, epochs: int, data: str, judge: str
) -> dict[str, Any]:
    """The JSON of a run, made where it is not there yet: as a server's child process would."""
    name = f"{stage}-{candidate.name}-{model}-{seed}"
    path = RUNS / f"{name}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    folder = WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    job = {
        "architecture": ARCHITECTURE,
        "base": str(initial(model)),
        "dataset": data,
        "evaluation_dataset": judge,
        "method": candidate.method,
        "options": candidate.options,
        "recipe": {**RECIPE, "epochs": epochs, **candidate.recipe, "seed": seed},
    }
    task = spec.Task.model_validate({"model": ARCHITECTURE, "job": job})
    (folder / spec.SPEC).write_text(task.model_dump_json())
    result = refine_package_evaluate(folder, _tell)
    row = {
        "stage": stage,
        "family": candidate.family,
        "candidate": candidate.name,
        "method": candidate.method,
        "options": candidate.options,
        "recipe": task.job.recipe.model_dump(),
        "model": model,
        "seed": seed,
        "bytes": candidate.bytes(result.package_bytes, result.learnable_count),
        "learnable_count": result.learnable_count,
        "before": result.metrics["accuracy_before"],
        "after": result.metrics["accuracy_after"],
        "seconds": round(result.metrics["seconds"], 1),
        "command": "make bench-lift",
        "machine": machine(),
        "finished": time.strftime("%Y-%m-%d"),
    }
    RUNS.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(row, indent=1) + "\n")
    beside.replace(path)
    return row


def _tell(line: dict[str, Any]) -> None:
    if line.get("step") in (None, line.get("steps")):
        print(json.dumps(line), file=sys.stderr, flush=True)
