"""The agent of a device: polls, downloads, verifies, reconstitutes, swaps, reports."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

__version__ = "0.1.0"


def _refuse_foreign_shared() -> None:
    """Exit where `shared` is somebody else's package: the name is a common one.

    It must lie beside this package; nothing of it is imported before that is known.
    """
    spec = importlib.util.find_spec("shared")
    found = Path(spec.origin).resolve().parent if spec and spec.origin else None
    if found == Path(__file__).resolve().parent.with_name("shared"):
        return
    sys.stderr.write(
        f"The package `shared` found at {found or 'no place'} is not Weft's"
        " [config.foreign_package] Install Weft in an environment without the other `shared`"
        " package.\n"
    )
    raise SystemExit(1)


_refuse_foreign_shared()
