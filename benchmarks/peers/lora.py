"""PEFT's LoRA: an adapter of float factors, as its file takes it; in half precision beside it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.lift.candidates import RATES
from benchmarks.lift.figures import lift
from benchmarks.lift.protocol import Protocol
from benchmarks.peers import outside, rows
from benchmarks.peers.dense import Dense
from benchmarks.peers.folding import Folding, change, matrices
from server.refine.job import Job
from server.refine.weights import State, load_state, save_state

RANKS = (1, 2, 4, 8)
#: The rank that the rate is tuned at, and the rate in the middle of the grid.
_TUNED_AT, _RATE = 2, 1e-2
_PREFIX = "base_model.model."
_DTYPES = {"float32": "", "float16": "-16bit"}


def tuned(protocol: Protocol) -> float:
    """The rate that does best on held-out rows, with one initial model and short trainings."""
    grid = [float(f"{_RATE * share:.3g}") for share in RATES]
    found = {rate: _run(protocol, "tune", _TUNED_AT, rate, 0, 0)[0] for rate in grid}
    return max(grid, key=lambda rate: lift(found[rate]))


def measure(protocol: Protocol, rank: int, rate: float, model: int, seed: int) -> None:
    """A full training, judged on the test set."""
    _run(protocol, "test", rank, rate, model, seed)


def _run(
    protocol: Protocol, stage: str, rank: int, rate: float, model: int, seed: int
) -> list[dict[str, Any]]:
    setting = protocol.setting.name
    names = {d: f"{stage}-peft-{rank}{s}-l{rate:.3g}-{model}-{seed}" for d, s in _DTYPES.items()}
    there = [row for row in (rows.found(setting, name) for name in names.values()) if row]
    if len(there) == len(names):
        return there
    run = Dense(protocol, stage, 0.0, model, seed)
    recipe = run.recipe | {"learning_rate": rate}
    job = run.job()
    before = job.measure.base().accuracy
    made = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        request = {
            "setting": setting,
            "recipe": recipe,
            "rank": rank,
            "base": str(protocol.initial(model)),
            "dataset": run.data[0],
            "folder": place,
        }
        seconds = outside.call("lora_line", request)["seconds"]
        for dtype, name in names.items():
            size, after = _sent(job, folder, dtype)
            family = f"peft-{rank}{_DTYPES[dtype]}"
            row = run.row(family, size, before, after, seconds)
            told = {"recipe": recipe, "method": "peft", "options": {"rank": rank, "dtype": dtype}}
            made.append(rows.written(setting, name, row | told))
    return made


def _sent(job: Job, folder: Path, dtype: str) -> tuple[int, float]:
    """The adapter's file with all that has to travel, and what it gives."""
    precision: torch.dtype = getattr(torch, dtype)
    weights = load_state(folder / dtype)
    settled = Folding(job)(weights)
    vectors = {n: settled[n] for n in change(settled, job.base) if n not in matrices(settled)}
    sent: State = load_state(folder / "adapter") | {_PREFIX + n: t for n, t in vectors.items()}
    file = folder / f"sent-{dtype}"
    save_state(file, {n: t.to(precision) for n, t in sent.items()})
    rounded = {n: t.to(precision).float() for n, t in vectors.items()}
    held = {n: t for n, t in job.base.items() if n not in matrices(settled)}
    after = job.evaluate_state(held | matrices(weights) | rounded).accuracy
    return file.stat().st_size, after
