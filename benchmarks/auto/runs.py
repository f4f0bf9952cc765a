"""One run: its JSON, made where it is not there yet, as a server's child process would."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

from benchmarks import keeping
from benchmarks.auto.setting import (
    ARCHITECTURE,
    ARGUMENTS,
    DEPLOYED,
    FIRST,
    JUDGES,
    NEW,
    RECIPE,
    ROOT,
    Way,
)
from server.publish import spec
from server.publish.budget.curve import read_curve
from server.publish.budget.goal import AUTO
from server.publish.budget.run import Missed, refine_within
from server.publish.update import make_update
from server.refine.initial import train_initial
from server.refine.job import Job
from server.refine.recipe import Recipe
from server.refine.spec import JobSpec
from server.refine.weights import save_state
from server.registry.opening import open_dataset

RUNS = ROOT / "benchmarks" / "results" / "auto"
WORK = ROOT / "var" / "bench" / "auto"


def initial(seed: int) -> Path:
    """The model as deployed, trained where it is not there yet."""
    path = WORK / f"initial-{seed}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        recipe = Recipe.model_validate({**FIRST, "seed": seed})
        save_state(
            path,
            train_initial(ARCHITECTURE, ARGUMENTS, open_dataset(DEPLOYED), recipe, keeping.tell),
        )
    return path


def measure(way: Way, seed: int) -> dict[str, Any]:
    """The run of a way; initial model and refinement have the same seed."""
    name = f"{way.name}-{seed}"
    path = RUNS / f"{name}.json"
    there = keeping.read(path)
    if there is not None:
        return there
    folder = WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    task = spec.Task.model_validate({"model": ARCHITECTURE, "job": _job(way, seed)})
    (folder / spec.SPEC).write_text(task.model_dump_json())
    began = time.process_time()
    found = _searched(task, folder) if way.method == AUTO else _refined(task, folder)
    row = {
        "name": way.name,
        "method": way.method,
        "options": way.options,
        "recipe": task.job.recipe.model_dump(),
        "seed": seed,
        **found,
        "cpu_seconds": round(time.process_time() - began, 1),
    }
    return keeping.keep(path, row, "make bench-auto")


def _job(way: Way, seed: int) -> dict[str, Any]:
    return {
        "architecture": ARCHITECTURE,
        "arguments": ARGUMENTS,
        "base": str(initial(seed)),
        "dataset": NEW,
        "evaluation_dataset": JUDGES,
        "method": way.method,
        "options": way.options,
        "recipe": {**RECIPE, **way.recipe, "seed": seed},
    }


def _refined(task: spec.Task, folder: Path) -> dict[str, Any]:
    """As a server's child process refines, on data that were opened before."""
    job = _opened(task.job.recipe.seed).trial(task.job, folder)
    return _figures(make_update(task, job, folder, keeping.tell))


@functools.cache
def _opened(seed: int) -> Job:
    """The data, and the base's answers: `auto` opens and asks once as well."""
    job = Job(JobSpec.model_validate(_job(Way("", "direct"), seed)))
    job.measure.base()
    return job


def _searched(task: spec.Task, folder: Path) -> dict[str, Any]:
    try:
        found = _figures(refine_within(task, folder, keeping.tell))
    except Missed as missed:
        found = {"missed": str(missed)}
    curve = read_curve(folder)
    assert curve is not None
    return found | {"curve": curve.model_dump(mode="json")}


def _figures(result: spec.Result) -> dict[str, Any]:
    metrics = result.metrics
    return {
        "bytes": result.package_bytes,
        "before": metrics["accuracy_before"],
        "after": metrics["accuracy_after"],
        "chosen": {"method": result.method, "options": result.options},
    }
