"""One step of an update in place, as a process of its own, to be measured.

python -m benchmarks.in_place write WEIGHTS PACKAGE UNDO
python -m benchmarks.in_place new|old WEIGHTS UNDO
"""

from __future__ import annotations

import sys
from pathlib import Path

from edge_agent import trust
from edge_agent.undo import toggle


def main(step: str, *paths: str) -> None:
    """Do the step."""
    if step == "write":
        from edge_agent.reconstitute import write_undo

        weights, package, undo = (Path(path) for path in paths)
        with trust.admit_local(package, 1 << 40) as admitted:
            write_undo(admitted, weights, undo)
    else:
        weights, undo = (Path(path) for path in paths)
        toggle(weights, undo, "new" if step == "new" else "old")


if __name__ == "__main__":
    main(*sys.argv[1:])
