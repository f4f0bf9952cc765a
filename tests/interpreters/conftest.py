"""Other Python versions, each with a device's dependencies and nothing else."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def _candidates(version: str) -> Iterator[Path]:
    if on_path := shutil.which(f"python{version}"):
        yield Path(on_path)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python"))


def _is(python: Path, version: str) -> bool:
    """Whether it starts (a shim may not) and is the version wanted."""
    ask = [python, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]
    answer = subprocess.run(ask, capture_output=True, text=True)
    return answer.returncode == 0 and answer.stdout.strip() == version


def _install(python: Path, folder: Path, checkout: Path) -> None:
    """Make an environment with the base dependencies of pyproject.toml, as constraints.txt says."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-q", "-c", "constraints.txt"]
    subprocess.run([*pip, *project["dependencies"]], cwd=checkout, check=True)


@pytest.fixture(scope="session")
def device_python(checkout: Path) -> Callable[[str], Path]:
    """Gives the interpreter of a version, in an environment kept below build/; skips without it."""

    def find(version: str) -> Path:
        python = next((path for path in _candidates(version) if _is(path, version)), None)
        if python is None:
            pytest.skip(f"no Python {version} on this machine (looked on PATH and in pyenv)")
        folder = checkout / "build" / f"python{version}"
        pins = [(checkout / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
        wanted = hashlib.sha256(b"".join(pins)).hexdigest()
        folder.parent.mkdir(exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the other test process may be making it
            stamp = folder / "installed"
            if not stamp.exists() or stamp.read_text() != wanted:
                _install(python, folder, checkout)
                stamp.write_text(wanted)
        return folder / "bin" / "python"

    return find
