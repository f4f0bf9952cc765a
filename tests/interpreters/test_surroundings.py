"""What a program finds around it: a light agent, and somebody else's `shared` package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "server", "fastapi", "sqlalchemy", "typer", "rich", "pyarrow")


def _run(code: str, first_on_path: Path) -> subprocess.CompletedProcess[str]:
    """Run in a fresh interpreter, started in `first_on_path` so that the checkout comes second."""
    checkout = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": f"{first_on_path}:{checkout}"}
    return subprocess.run(
        command, cwd=first_on_path, env=environment, capture_output=True, text=True, check=False
    )


def test_agent_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = "import edge_agent.cli, sys; print(*(m for m in sys.modules if '.' not in m))"
    done = _run(loaded, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not set(HEAVY) & set(done.stdout.split())


@pytest.mark.parametrize("program", ["edge_agent", "edge_agent.cli", "server", "server.cli"])
@pytest.mark.parametrize("content", ["", "errors"])
def test_foreign_shared_package_is_refused(program: str, content: str, tmp_path: Path) -> None:
    foreign = tmp_path / "shared"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("")
    if content:
        (foreign / f"{content}.py").write_text("class SomebodysError(Exception): ...\n")
    done = _run(f"import {program}", tmp_path)
    assert done.returncode == 1
    assert "config.foreign_package" in done.stderr
    assert str(foreign) in done.stderr
    assert "Traceback" not in done.stderr
