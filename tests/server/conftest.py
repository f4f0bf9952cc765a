"""A server in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import asyncio, sys
from server.app import create_app
from server.settings import load_settings

async def start():
    app = create_app(load_settings(data_dir=sys.argv[1], auto_migrate=sys.argv[2] == "True"))
    async with app.router.lifespan_context(app):
        pass

asyncio.run(start())
"""


@pytest.fixture
def start_alone(checkout: Path, databases: Any) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Starts the app in another process, and returns how that ended."""

    def start(folder: Path, auto_migrate: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, str(folder), str(auto_migrate)]
        return subprocess.run(
            command,
            cwd=checkout,
            env={**os.environ, **databases.environment(folder)},
            capture_output=True,
            text=True,
            check=False,
        )

    return start
