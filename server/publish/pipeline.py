"""The child process of a refinement: `python -m server.publish.pipeline FOLDER`.

It makes one update (`update`), or, by `auto`, several to choose from (`budget`).

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
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.errors import ServerError
from server.publish import spec
from server.publish.budget.curve import read_curve
from server.publish.budget.goal import AUTO
from server.publish.budget.run import Missed, refine_within
from server.publish.spec import Result, Task, write_durably
from server.publish.update import make_update
from server.refine.job import Job
from shared.errors import NoSpace, WeftError

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
        if _has_ended(folder):
            return 0
        try:
            refine_package_evaluate(folder, _report)
        except Missed:
            return 0  # the curve says why; the server keeps both
        except Exception as error:
            traceback.print_exc()  # to the folder's log
            ours = _as_ours(error)
            told = {"code": ours.code, "message": ours.message, "todo": ours.todo}
            write_durably(folder / spec.ERROR, json.dumps(told))
            return ours.exit_status
    return 0


def refine_package_evaluate(folder: Path, report: Report) -> Result:
    """What the folder's spec asks for; leaves the results there. Raises Missed, WeftError."""
    report({"stage": "refine"})  # opening data and factorising may take a while
    task = Task.model_validate_json((folder / spec.SPEC).read_bytes())
    if task.job.method == AUTO:
        return refine_within(task, folder, report)
    return make_update(task, Job(task.job, folder), folder, report)


def _has_ended(folder: Path) -> bool:
    """Whether an earlier start came to its results, or to why there are none."""
    curve = read_curve(folder)
    missed = curve is not None and curve.failure is not None
    return missed or (folder / spec.RESULT).exists()


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
