"""The peers' environment: requests and answers are JSON, tensors are files."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.lift.settings import ROOT

#: Made by `make bench-peers`.
PYTHON = Path(os.environ.get("WEFT_PEERS", ROOT / "var" / "peers-env")) / "bin" / "python"
_ASKED = ("nncodec", "peft", "bsdiff4", "torch", "numpy")


def call(line: str, request: Any) -> Any:
    """The answer of `benchmarks.peers.<line>`, run in the peers' environment: its last line.

    Raises CalledProcessError where it fails.
    """
    told = _python(["-m", f"benchmarks.peers.{line}"], json.dumps(request))
    return json.loads(told.splitlines()[-1])


@cache
def versions() -> dict[str, str]:
    """Of what the peers' environment brings."""
    asked = f"import importlib.metadata as m; print(*map(m.version, {_ASKED}))"
    return dict(zip(_ASKED, _python(["-c", asked], "").split(), strict=True))


def _python(arguments: list[str], sent: str) -> str:
    command = [str(PYTHON), *arguments]
    done = subprocess.run(
        command, input=sent, text=True, check=True, stdout=subprocess.PIPE, cwd=ROOT
    )
    return done.stdout
