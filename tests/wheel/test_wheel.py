"""What the wheel holds, and that it is enough."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

WHERE = "import edge_agent, server, shared; print(server.__file__, edge_agent.__file__)"


def test_wheel_holds_the_three_packages_and_the_migrations(installed: Any, checkout: Path) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    roots = {name.split("/")[0] for name in names}
    assert roots == {"server", "edge_agent", "shared", "weft-0.1.0.dist-info"}
    assert not [name for name in names if name.endswith((".pyc", ".so"))]
    assert "weft-0.1.0.dist-info/licenses/LICENSE" in names
    for script in (checkout / "migrations" / "versions").glob("*.py"):
        assert f"server/_migrations/versions/{script.name}" in names


def test_imports_come_from_the_wheel(installed: Any, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WHERE],
        cwd=tmp_path,
        env=installed.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(path.startswith(str(installed.folder)) for path in done.stdout.split())


def test_installed_server_migrates(installed: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'weft.db'}"
    migrate = f"from server.db import migrate; migrate({url!r})"
    subprocess.run(
        [sys.executable, "-c", migrate], cwd=tmp_path, env=installed.environment, check=True
    )
    with sqlite3.connect(tmp_path / "weft.db") as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    database.close()
    assert {"models", "versions", "devices", "alembic_version"} <= tables
