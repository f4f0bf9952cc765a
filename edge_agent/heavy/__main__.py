"""The child: one task in, one answer out. Started by `edge_agent.heavy.child` only."""

from __future__ import annotations

import base64
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from edge_agent import logs
from edge_agent.errors import AgentError
from edge_agent.heavy.inline import Inline
from edge_agent.heavy.messages import pack_error, unpack_promise
from shared.errors import WeftError

_READ_BYTES = 1 << 16
_STDIN, _STDOUT, _STDERR = range(3)


def main() -> NoReturn:
    """Read the task from standard input, do it, answer on standard output, end."""
    answers = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)  # what a library prints is not an answer
    told = json.loads(_read_line())
    threading.Thread(target=_end_with_the_agent, daemon=True).start()
    logs.begin(told["log_level"])
    with open(answers, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
        file.write(json.dumps(_done(told["task"], told["arguments"])).encode())
    sys.stdout.flush()
    os._exit(0)  # taking modules apart takes time


def _read_line() -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(_STDIN, _READ_BYTES)
        if not piece:
            os._exit(1)
        line += piece
    return bytes(line)


def _end_with_the_agent() -> None:
    """End this process, wherever it is, when nobody holds the other end of its input."""
    while os.read(_STDIN, _READ_BYTES):
        pass
    os._exit(1)


def _done(task: str, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": TASKS[task](arguments)}
    except WeftError as error:
        return {"error": pack_error(error)}
    except MemoryError:
        raise  # to the agent, as good as a kill by the kernel
    except Exception as error:
        logging.critical("%s: unexpected", task, exc_info=True)
        said = f"{task}: {type(error).__name__}: {error}"
        return {"error": pack_error(AgentError("unexpected", said))}


def _about(_: dict[str, Any]) -> dict[str, Any]:
    about = Inline().about()
    return {**vars(about), "fault": pack_error(about.fault) if about.fault else None}


def _digest(given: dict[str, Any]) -> str | None:
    return Inline().digest(Path(given["path"]))


def _inspect(given: dict[str, Any]) -> dict[str, Any]:
    packages = [(Path(path), unpack_promise(promise)) for path, promise in given["packages"]]
    said = Inline().inspect(packages, _path(given["base"]))
    return {"sizes": said.sizes, "golden": said.golden.fields() if said.golden else None}


def _apply(given: dict[str, Any]) -> str:
    promise = unpack_promise(given["promise"])
    base, output = _path(given["base"]), Path(given["output"])
    return Inline().apply(Path(given["package"]), promise, base, output)


def _write_undo(given: dict[str, Any]) -> str:
    package, base, undo = (Path(given[name]) for name in ("package", "base", "undo"))
    return Inline().write_undo(package, unpack_promise(given["promise"]), base, undo)


def _verify_metadata(given: dict[str, Any]) -> dict[str, Any]:
    answer = base64.b64decode(given["answer"]) if given["answer"] is not None else None
    place, model = Path(given["state_dir"]), given["model"]
    return Inline().verify_metadata(place, model, answer, given["pin"], given["now"]).fields()


def _toggle(given: dict[str, Any]) -> None:
    Inline().toggle(Path(given["weights"]), Path(given["undo"]), given["to"])


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


TASKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "about": _about,
    "digest": _digest,
    "inspect": _inspect,
    "apply": _apply,
    "write_undo": _write_undo,
    "verify_metadata": _verify_metadata,
    "toggle": _toggle,
}

if __name__ == "__main__":
    main()
