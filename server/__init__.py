"""Weft's server and its command line: everything that runs beside the operators.

`server` and `shared` are generic names, and other distributions use them too. So importing
`server` first makes sure that this Python is new enough and that `shared` is Weft's own; else the
program stops with a sentence instead of a traceback about a missing name.
"""

from __future__ import annotations

import importlib
import sys


def _stop(code: str, found: str, todo: str) -> None:
    raise SystemExit(f"weft: {found} [{code}] {todo}")


def _check_surroundings() -> None:
    """Stop with exit status 1 where Weft's server cannot run."""
    if sys.version_info < (3, 11):
        running = ".".join(map(str, sys.version_info[:3]))
        _stop(
            "config.python_too_old",
            f"this is Python {running}, and Weft's server needs 3.11.",
            "Install Weft in an environment with Python 3.11 or later (devices may run 3.10).",
        )
    try:
        found = importlib.import_module("shared.errors")
        importlib.import_module("shared.tensors")
    except ImportError:
        found = None
    if not hasattr(found, "WeftError"):
        spec = importlib.util.find_spec("shared")
        place = (spec.origin or list(spec.submodule_search_locations or [])) if spec else "nowhere"
        _stop(
            "config.foreign_package",
            f"the package `shared` found here ({place}) is not Weft's.",
            "Install Weft in an environment without the other `shared` package.",
        )


_check_surroundings()
