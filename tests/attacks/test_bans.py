"""No format that runs code when it is read: each ban bites, and nothing gets round them."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOMS = ("server", "edge_agent", "shared", "demo", "benchmarks", "migrations", ".ci")

#: A line that must be refused -> the rule that refuses it.
BANNED = {
    "import pickle": "TID251",
    "from pickle import loads": "TID251",
    "import _pickle": "TID251",
    "import dill": "TID251",
    "import cloudpickle": "TID251",
    "import marshal": "TID251",
    "import shelve": "TID251",
    "import joblib": "TID251",
    "from joblib import load": "TID251",
    "import torch; torch.load('w')": "TID251",
    "import torch; torch.save({}, 'w')": "TID251",
    "from torch import load": "TID251",
    "import torch; torch.jit.load('w')": "TID251",
    "import torch; torch.hub.load('a/b', 'c')": "TID251",
    "import numpy as np; np.load('w', allow_pickle=True)": "TID251",
    "from numpy import load": "TID251",
    "import yaml; yaml.load('', yaml.SafeLoader)": "TID251",
    "import yaml; yaml.unsafe_load('')": "TID251",
    "eval('1')": "S307",
    "import pickle; pickle.loads(b'')": "S301",
    "import subprocess; subprocess.run('ls', shell=True)": "S602",
    "import tarfile; tarfile.open('a').extractall()": "S202",
    "import ssl; ssl._create_unverified_context()": "S323",
    "import hashlib; hashlib.md5(b'')": "S324",
}


@pytest.fixture(scope="module")
def found(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What ruff says of each line, with the project's own settings."""
    folder = tmp_path_factory.mktemp("banned")
    names = {f"line_{number}.py": line for number, line in enumerate(BANNED)}
    for name, line in names.items():
        (folder / name).write_text(line + "\n")
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=json"]
    settings = ["--config", str(checkout / "pyproject.toml"), str(folder)]
    told = subprocess.run([*ruff, *settings], capture_output=True, text=True, check=False)
    rules: dict[str, set[str]] = {line: set() for line in BANNED}
    for fault in json.loads(told.stdout):
        rules[names[Path(fault["filename"]).name]].add(fault["code"])
    return rules


@pytest.mark.parametrize("line", BANNED)
def test_each_ban_bites(line: str, found: dict[str, set[str]]) -> None:
    assert BANNED[line] in found[line]


def _sources(checkout: Path) -> list[Path]:
    return [path for room in (*ROOMS, "tests") for path in (checkout / room).rglob("*.py")]


def _unpickles(tree: ast.AST) -> bool:
    """Whether somewhere `allow_pickle=` is anything but False."""
    return any(
        isinstance(node, ast.keyword)
        and node.arg == "allow_pickle"
        and not (isinstance(node.value, ast.Constant) and node.value.value is False)
        for node in ast.walk(tree)
    )


def test_nothing_allows_numpy_to_unpickle(checkout: Path) -> None:
    assert _unpickles(ast.parse("read_array(file, allow_pickle=True)"))
    assert _unpickles(ast.parse("read_array(file, allow_pickle=wanted)"))
    assert not _unpickles(ast.parse("read_array(file, allow_pickle=False)"))
    assert not [path for path in _sources(checkout) if _unpickles(ast.parse(path.read_bytes()))]


def test_no_line_is_excepted_from_a_ban(checkout: Path) -> None:
    excepted = [
        f"{path.name}: {line}"
        for path in _sources(checkout)
        for line in path.read_text(encoding="utf-8").splitlines()
        if "noqa" in line and ("TID251" in line or "S301" in line) and path != Path(__file__)
    ]
    assert not excepted
