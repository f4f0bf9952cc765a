"""The child process of a refinement: `python -m server.publish.pipeline FOLDER`.

    1. refine    train the method's parameters on the clone, from the checkpoint if there is one
    2. package   code them; settle BatchNorm on what a device decodes; write the package, decode it
    3. evaluate  base, refined and decoded weights on the same images

What lies in the folder is told in `spec`. Progress goes to stdout, one JSON object a line. The
process ends at once when its stdin does: the server has gone then, and the next one starts it anew.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from server.errors import ServerError
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
from shared.errors import NoSpace, WeftError
from shared.tensors import Array
from shared.weights import WeightsReader

Report = Callable[[dict[str, Any]], None]

STDIN = 0

#: Exit status of a child whose server has gone; nobody is left to read it.
SERVER_GONE = 3


def main(folder: Path) -> int:
    """Run the refinement in `folder` to its end and return the exit status."""
    threading.Thread(target=_leave_with_the_server, daemon=True).start()
    with (folder / spec.LOCK).open("w") as lock:
        # A child of a server that was just killed may still be leaving.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / spec.RESULT).exists():
            return 0
        try:
            refine_package_evaluate(folder, _report)
        except Exception as error:
            traceback.print_exc()  # to the folder's log
            ours = _as_ours(error)
            told = {"code": ours.code, "message": ours.message, "todo": ours.todo}
            write_durably(folder / spec.ERROR, json.dumps(told))
            return ours.exit_status
    return 0


def refine_package_evaluate(folder: Path, report: Report) -> Result:
    """The three steps; leaves the results in `folder`. Raises WeftError."""
    began = time.monotonic()
    report({"stage": "refine"})  # opening data and factorising may take a while
    task = Task.model_validate_json((folder / spec.SPEC).read_bytes())
    job = Job(task.job, folder)
    refined = job.train(report)  # 1
    report({"stage": "package"})
    built = _package(task, job, refined, folder)  # 2
    report({"stage": "evaluate"})
    before = job.measure.base()  # 3
    trained = job.evaluate_state(refined.state)
    after = job.evaluate(folder / spec.DECODED)
    result = Result(
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


def _package(task: Task, job: Job, refined: Refined, folder: Path) -> BuildReport:
    """Code what was learnt, settle BatchNorm on what that decodes to, and write the package."""
    method = methods.get(task.job.method)
    options: Any = methods.options(method, task.job.options)
    if not isinstance(method, methods.LossyMethod):
        state = _settle(job, refined, {}, folder).applied(refined)
        return _lossless(task, state, folder, _golden(job))
    with WeightsReader(task.job.base) as base:
        coded = code_matrices(base, refined.parameters, method, options)
        for name in refined.dense & refined.others.keys():
            form = refined.schema[name]
            if base.schema.get(name) == form:
                coded.sent[name] = send_elements(base, form, refined.others[name], options.bits)
        settled = _settle(job, refined, coded.decoded(), folder)
        places = folder / spec.PACKAGE, task.model, refined.schema, folder / spec.DECODED
        return finish(coded, settled.others, *places, _golden(job), settled.steps)


def _lossless(task: Task, state: State, folder: Path, golden: Expected | None) -> BuildReport:
    """The package of a dense retraining, sent to the bit."""
    target, job = folder / "target.safetensors", task.job
    save_state(target, state)
    places = folder / spec.PACKAGE, task.model, folder / spec.DECODED
    return build_package(job.base, target, job.method, job.options, *places, golden)


def _golden(job: Job) -> Expected | None:
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


def _as_ours(error: Exception) -> WeftError:
    if isinstance(error, WeftError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace("no_space", f"the refinement's folder: {error.strerror}")
    return ServerError("worker_failed", f"{type(error).__name__}: {error}")


def _report(progress: dict[str, Any]) -> None:
    try:
        print(json.dumps(progress), flush=True)
    except BrokenPipeError:
        os._exit(SERVER_GONE)


def _leave_with_the_server() -> None:
    """Wait for the end of stdin, and end the process, whatever it is doing.

    Not through `sys.stdin`: Python would wait at its end for the lock that a blocked read holds.
    """
    while os.read(STDIN, 4096):
        pass
    os._exit(SERVER_GONE)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
