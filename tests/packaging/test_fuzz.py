"""Ten thousand damaged packages: each is refused by name, or leads to the promised weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.packaging.encode import build_package
from shared.weights import write_weights

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"
MUTANTS = 10_000
METHODS: dict[str, dict[str, Any]] = {
    "ka": {"rank": 1},
    "ml": {"rank": 2},
    "ml_delta": {"rank": 2},
    "lra": {"rank": 1},
    "lru": {"rank": 1},
    "lora": {"rank": 1},
    "rm": {"proportion": 0.5},
    "sparse": {},
    "direct": {},
    "xor": {},
    "full": {},
}


def write_small(path: Path, seed: int, classes: int) -> None:
    """A tiny model of every kind of tensor, small enough to decode in a millisecond."""
    rng = np.random.default_rng(seed)
    mask = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
    tensors: dict[str, tuple[str, Any]] = {
        "b": ("F32", rng.standard_normal(classes).astype(np.float32)),
        "bn.running_var": ("F32", rng.uniform(0.5, 2, 6).astype(np.float32)),
        "conv": ("F16", rng.standard_normal((6, 2, 3, 3)).astype(np.float16)),
        "counter": ("I64", np.array(seed)),
        "head": ("F32", rng.standard_normal((classes, 12)).astype(np.float32)),
        "mask": ("F32", mask),
        "w": ("F32", np.random.default_rng(0).standard_normal((10, 12)).astype(np.float32)),
    }
    tensors["w"][1][...] += 0.01 * rng.standard_normal((10, 12))
    write_weights(path, tensors)


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """Small packages of every method, one with a new head, and all golden ones."""
    folder = tmp_path / "vectors"
    folder.mkdir()
    for method, options in METHODS.items():
        base, target = folder / f"{method}.base", tmp_path / "target"
        write_small(base, 1, 5)
        write_small(target, 2, 8 if method == "ka" else 5)
        build_package(base, target, method, options, folder / f"{method}.weft", "small")
    for package in GOLDEN.glob("*.weft"):
        base = GOLDEN / f"{package.name.partition('.')[0]}.base.safetensors"
        shutil.copy(base, folder / f"golden.{package.stem}.base")
        shutil.copy(package, folder / f"golden.{package.name}")
    return folder


def test_mutants_are_refused_by_name_or_lead_to_the_promised_weights(vectors: Path) -> None:
    paths = os.pathsep.join((str(HERE), str(HERE.parent.parent)))
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            str(HERE / "decode_mutants.py"),
            str(vectors),
            str(MUTANTS),
        ],
        env={**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["wrong"] == []
    assert report["mutants"] == sum(report["codes"].values()) == MUTANTS
    assert report["slowest"] < 5
    got_through = {"result.mismatch", "package.wrong_schema", "package.wrong_base", "accepted"}
    assert got_through <= set(report["codes"])  # else the mutants were too blunt
    assert report["codes"]["result.mismatch"] > MUTANTS / 20
