"""Weft's server and its command line: everything that runs beside the operators.

`server` and `shared` are generic names, and other distributions use them too. So importing
`server` first makes sure that this Python is new enough and that `shared` is Weft's own; else the
program stops with a sentence instead of a traceback about a missing name.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import NoReturn


def _stop(code: str, found: str, todo: str) -> NoReturn:
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
        known = hasattr(importlib.import_module("shared.errors"), "WeftError")
    except ImportError:
        known = False
    if not known:
        _stop(
            "config.foreign_package",
            f"the package `shared` found here ({_place('shared')}) is not Weft's.",
            "Install Weft in an environment without the other `shared` package.",
        )


def _place(package: str) -> str:
    """Where Python finds `package`."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return "nowhere"
    return spec.origin or ", ".join(spec.submodule_search_locations or ())


_check_surroundings()
