"""bsdiff4 in the peers' environment. stdin: `{"base", "new"}`, files. stdout: bytes of a patch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import bsdiff4  # type: ignore[import-not-found]


def main() -> int:
    """Answer the request."""
    asked = json.load(sys.stdin)
    base, new = (Path(asked[name]).read_bytes() for name in ("base", "new"))
    patch = bsdiff4.diff(base, new)
    if bsdiff4.patch(base, patch) != new:
        raise RuntimeError("the patch does not give the new file")
    print(len(patch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
