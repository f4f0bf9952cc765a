"""One update: trained, packaged, measured; the results lie in a folder (see `spec`).

1. refine    train the method's parameters on the clone, from the checkpoint if there is one
2. package   code them; settle BatchNorm on what a device decodes; write the package, decode it
3. evaluate  base, refined and decoded weights on the same images
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from server.packaging.encode import BuildReport, build_package, code_matrices, finish
from server.packaging.expected import Expected
from server.packaging.sent import send_elements
from server.publish import spec
from server.publish.spec import Result, Task, sync, write_durably
from server.refine.evaluate import Scores
from server.refine.job import Job
from server.refine.outcome import Refined, Settled
from server.refine.weights import State, save_state
from shared import methods
from shared.tensors import Array
from shared.weights import WeightsReader

Report = Callable[[dict[str, Any]], None]


def make_update(task: Task, job: Job, folder: Path, report: Report) -> Result:
    """The three steps; leaves the results in `folder`. Raises WeftError."""
    began = time.monotonic()
    refined = job.train(report)  # 1
    report({"stage": "package"})
    built = package(task, job, refined, folder)  # 2
    report({"stage": "evaluate"})
    return conclude(task, job, refined, built, folder, began)  # 3


def conclude(
    task: Task, job: Job, refined: Refined, built: BuildReport, folder: Path, began: float
) -> Result:
    """Measure what was built, and write the result, last of all files."""
    before = job.measure.base()
    trained = job.evaluate_state(refined.state)
    after = job.evaluate(folder / spec.DECODED)
    result = Result(
        method=task.job.method,
        options=methods.options(methods.get(task.job.method), task.job.options).model_dump(),
        package_bytes=built.size,
        full_bytes=(folder / spec.DECODED).stat().st_size,
        learnable_count=refined.learnable_count,
        base_digest=built.base_digest or "",
        result_digest=built.result_digest,
        metrics=_metrics(before, trained, after) | {"seconds": time.monotonic() - began},
        tensors={name: asdict(tensor) for name, tensor in built.tensors.items()},
        coder=built.coder,
        golden=built.golden,
    )
    for name in (spec.PACKAGE, spec.DECODED):
        sync(folder / name)
    write_durably(folder / spec.RESULT, result.model_dump_json(indent=1))
    return result


def package(
    task: Task, job: Job, refined: Refined, folder: Path, coarser: float = 1.0
) -> BuildReport:
    """Code what was learnt, settle BatchNorm on what that decodes to, and write the package.

    `coarser` is a factor on the steps of biases and BatchNorm.
    """
    method = methods.get(task.job.method)
    options: Any = methods.options(method, task.job.options)
    if not isinstance(method, methods.LossyMethod):
        state = _settle(job, refined, {}, folder).applied(refined)
        return _lossless(task, state, folder, golden(job))
    with WeightsReader(task.job.base) as base:
        coded = code_matrices(base, refined.parameters, method, options)
        for name in refined.dense & refined.others.keys():
            form = refined.schema[name]
            if base.schema.get(name) == form:
                coded.sent[name] = send_elements(base, form, refined.others[name], options.bits)
        settled = _settle(job, refined, coded.decoded(), folder)
        if coarser > 1.0:
            settled = replace(settled, steps=_coarsened(settled, job.base, coarser))
        places = folder / spec.PACKAGE, task.model, refined.schema, folder / spec.DECODED
        return finish(coded, settled.others, *places, golden(job), settled.steps)


def _coarsened(settled: Settled, base: State, coarser: float) -> dict[str, float]:
    """Larger steps; the largest change is at most so many of them where none was known."""
    steps = {}
    for name, values in settled.others.items():
        if name in base and tuple(base[name].shape) == values.shape:
            largest = float(np.abs(values - base[name].double().numpy()).max(initial=0.0))
            steps[name] = coarser * settled.steps.get(name, largest / _FINE)
    return steps


#: Steps of the largest change, on the finest of the grids that are made coarser.
_FINE = 127


def _lossless(task: Task, state: State, folder: Path, samples: Expected | None) -> BuildReport:
    """The package of a dense retraining, sent to the bit."""
    target, job = folder / "target.safetensors", task.job
    save_state(target, state)
    places = folder / spec.PACKAGE, task.model, folder / spec.DECODED
    return build_package(job.base, target, job.method, job.options, *places, samples)


def golden(job: Job) -> Expected | None:
    """The golden samples that the recipe asks for."""
    count = job.spec.recipe.golden
    return Expected(job.target, count, job.shape) if count else None


def _settle(job: Job, refined: Refined, decoded: dict[str, Array], folder: Path) -> Settled:
    """BatchNorm as devices will have it; its statistics are kept for the next refinement."""
    settled = job.settle(refined, decoded)
    if settled.statistics:
        settled.save_statistics(folder / spec.UNFOLDED)
        sync(folder / spec.UNFOLDED)
    return settled


def _metrics(before: Scores, trained: Scores, after: Scores) -> dict[str, Any]:
    return {
        "images": after.images,
        "accuracy_before": before.accuracy,
        "accuracy_refined": trained.accuracy,
        "accuracy_after": after.accuracy,
        "per_class_before": before.per_class,
        "per_class_after": after.per_class,
        "negative_flips": after.negative_flips,
    }
