"""The child process of a refinement: `python -m server.publish.pipeline FOLDER`.

    1. refine    train the method's parameters on the clone, from the checkpoint if there is one
    2. package   code them; settle BatchNorm on what a device decodes; write the package, decode it
    3. evaluate  base, refined and decoded weights on the same images

What lies in the folder is told in `spec`. Progress goes to stdout, one JSON object a line. The
process ends at once when its stdin does: then the server has gone, and the next one starts it again.
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
from server.packaging.encode import BuildReport, code_matrices, finish
from server.packaging.sent import send_elements
from server.publish import spec
from server.publish.spec import JobSpec, Result, sync, write_durably
from server.refine import job as refine
from server.refine.evaluate import Scores
from shared import methods
from shared.errors import BadMethod, NoSpace, WeftError
from shared.tensors import WeightsReader

Report = Callable[[dict[str, Any]], None]

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
    told = JobSpec.model_validate_json((folder / spec.SPEC).read_bytes())
    job = refine.Job(_refine_spec(told, folder), folder)
    refined = job.train(report)  # 1
    report({"stage": "package"})
    built = _package(told, job, refined, folder)  # 2
    report({"stage": "evaluate"})
    before = job.evaluate_base()  # 3
    after = job.evaluate(folder / spec.DECODED)
    trained = job.evaluate_state(refined.state)
    result = Result(
        package_bytes=built.size,
        full_bytes=(folder / spec.DECODED).stat().st_size,
        learnable_count=refined.learnable_count,
        base_digest=built.base_digest or "",
        result_digest=built.result_digest,
        metrics=_metrics(before, trained, after) | {"seconds": time.monotonic() - began},
        tensors={name: asdict(tensor) for name, tensor in built.tensors.items()},
    )
    for name in (spec.PACKAGE, spec.DECODED):
        sync(folder / name)
    write_durably(folder / spec.RESULT, result.model_dump_json(indent=1))
    return result


def _refine_spec(told: JobSpec, folder: Path) -> refine.JobSpec:
    statistics = folder / spec.STATISTICS
    return refine.JobSpec(
        **told.model_dump(exclude={"model"}),
        base=folder / spec.BASE,
        statistics=statistics if statistics.exists() else None,
    )


def _package(told: JobSpec, job: refine.Job, refined: refine.Refined, folder: Path) -> BuildReport:
    """Code what was learnt, settle BatchNorm on what that decodes to, and write the package."""
    method = methods.get(told.method)
    if not isinstance(method, methods.LossyMethod):
        raise BadMethod("not_applicable", f"{method.id} cannot be trained")
    options: Any = methods.options(method, told.options)
    with WeightsReader(folder / spec.BASE) as base:
        coded = code_matrices(base, refined.parameters, method, options)
        for name in refined.dense:
            form = refined.schema[name]
            if base.schema.get(name) == form:
                coded.sent[name] = send_elements(base, form, refined.others[name], options.bits)
        settled = job.settle(refined, coded.decoded())
        if settled.statistics:
            settled.save_statistics(folder / spec.UNFOLDED)
        return finish(
            coded,
            settled.others,
            folder / spec.PACKAGE,
            told.model,
            refined.schema,
            folder / spec.DECODED,
        )


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
    """Wait for the end of stdin, and end the process, whatever it is doing."""
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(SERVER_GONE)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
