"""The agent works on the oldest and the newest Python that devices run, without the server's."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

IMPORT_ALL = """
import importlib, pathlib, sys
for root in ("shared", "edge_agent"):
    for path in sorted(pathlib.Path(root).rglob("*.py")):
        if path.name != "torch_live.py":
            parts = path.with_suffix("").parts
            importlib.import_module(".".join(p for p in parts if p != "__init__"))
"""

pytestmark = pytest.mark.parametrize("version", ["3.10", "3.13"])


def _run(python: Path, checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run on the checkout's code, warnings being errors as in every other test."""
    command = [str(python), "-W", "error", *arguments]
    environment = {"PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)


def test_every_module_imports(
    version: str, device_python: Callable[[str], Path], checkout: Path
) -> None:
    done = _run(device_python(version), checkout, "-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr


def test_golden_vectors_decode_to_their_digests(
    version: str, device_python: Callable[[str], Path], checkout: Path
) -> None:
    script = ["tests/aarch64/decode_golden.py", "tests/golden"]
    done = _run(device_python(version), checkout, *script)
    assert done.returncode == 0, done.stdout + done.stderr


def test_agent_starts(version: str, device_python: Callable[[str], Path], checkout: Path) -> None:
    start = "import sys; from edge_agent.cli import main; sys.exit(main())"
    done = _run(device_python(version), checkout, "-c", start, "--help")
    assert done.returncode == 0, done.stderr
    assert "apply" in done.stdout


def test_server_refuses_an_old_python(
    version: str, device_python: Callable[[str], Path], checkout: Path
) -> None:
    if version != "3.10":
        pytest.skip("the server runs on this version")
    done = _run(device_python(version), checkout, "-c", "import server")
    assert done.returncode == 1
    assert "config.python_too_old" in done.stderr
    assert "Traceback" not in done.stderr
