"""`make bench-refine`: what a step of each method takes, against a step of dense training.

A step is forward, backward and optimizer, on a batch of 128 images that is ready. Dense training
trains the weights as they are. Both run in turn in one process, before rounding begins and with it,
so that what else the machine does falls on both. On a CPU there is one thread, and its own time is
counted, so that waiting for a core is not; on a GPU, time on the clock.

All is in benchmarks/results/refine.json; a run that is there is not repeated. Some minutes for
VGG-medium, half an hour for ResNet18, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import machine
from server import zoo
from server.refine.effective import Plan, clone_for, dense_clone
from server.refine.loop import optimizer_of, take_step
from server.refine.recipe import Recipe
from server.refine.start import Start, start_from
from server.refine.weights import state_of
from shared import methods

RESULTS = Path(__file__).parent / "results" / "refine.json"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "results" / "refine.md"

BATCH = 128
LIMIT = 1.2
#: Model -> how often each kind of step is taken; the first, which prepares kernels, not counted.
MODELS = {"vgg_medium": 9, "resnet18": 5}
PRECISIONS = ("float32", "bfloat16")
METHODS: dict[str, dict[str, float]] = {
    "ka": {"rank": 3},
    "ml": {"rank": 20},
    "ml_delta": {"rank": 20},
    "lra": {"rank": 16},
    "lru": {"rank": 22},
    "lora": {"rank": 3},
    "rm": {"proportion": 0.05},
    "sparse": {},
    "direct": {},
}
KINDS = ("dense", "plain", "rounded")


def run(model: str, method: str, precision: str, steps: int) -> dict[str, Any]:
    """Steps of both in turn; seconds of each."""
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = Recipe.model_validate({"precision": precision})
    chosen = methods.get(method)
    plan = Plan(chosen, methods.options(chosen, METHODS[method]), recipe)
    clones = {
        "dense": dense_clone(_start(model), recipe.vector_rate, device),
        "method": clone_for(_start(model), plan, device),
    }
    optimizers = {name: optimizer_of(clone, recipe) for name, clone in clones.items()}
    images, labels = _batch(device)
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for turn in range(steps + 1):
        for place in range(len(KINDS)):
            kind = KINDS[(turn + place) % len(KINDS)]  # none is always the first
            name = "dense" if kind == "dense" else "method"
            clone, optimizer = clones[name], optimizers[name]
            clone.module.train()
            clone.round(kind == "rounded")
            begin = _now(device)
            take_step(clone, optimizer, images, labels, recipe)
            spent = _now(device) - begin
            if turn:
                seconds[kind].append(round(spent, 6))
    return {
        "model": model,
        "method": method,
        "options": METHODS[method],
        "precision": precision,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu, one thread",
        "seconds": seconds,
        "command": "make bench-refine",
        "machine": machine(),
        "finished": time.strftime("%Y-%m-%d"),
    }


def _start(model: str) -> Start:
    torch.manual_seed(0)
    module = zoo.get(model).build({})
    return start_from(state_of(module), module)


def _batch(device: torch.device) -> tuple[Tensor, Tensor]:
    """Images as `Batches` gives them, channels last in memory, and labels."""
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(BATCH, 32, 32, 3, generator=draw).permute(0, 3, 1, 2) * 2 - 1
    return images.to(device), torch.randint(10, (BATCH,), generator=draw).to(device)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def ratio(seconds: dict[str, list[float]], kind: str) -> tuple[float, float, float]:
    """Of the medians, and the lowest and the highest of steps that followed each other."""
    pairs = [a / b for a, b in zip(seconds[kind], seconds["dense"], strict=True)]
    medians = statistics.median(seconds[kind]) / statistics.median(seconds["dense"])
    return medians, min(pairs), max(pairs)


def page(rows: list[dict[str, Any]]) -> str:
    """docs/results/refine.md."""
    worst = max(ratio(row["seconds"], kind)[0] for row in rows for kind in ("plain", "rounded"))
    lines = [
        "# A step of each method",
        "",
        f"Made by `make bench-refine`: forward, backward and optimizer on {BATCH} images of 32x32, "
        "as a ratio to a step of dense",
        "training of the same model, taken in turn in one process: the ratio of the medians "
        "(lowest to highest of steps that",
        "followed each other). *Plain* is before rounding begins, *rounded* after. On a CPU, the "
        "time of one thread.",
        "",
        f"A step may take {LIMIT} times a dense one: the highest ratio here is {worst:.2f}, "
        f"{'met' if worst <= LIMIT else '**not met**'}.",
        *_missing(rows),
        "",
        "| model | device | precision | method | dense step | plain | rounded | steps |",
        "|---|---|---|---|---|---|---|---|",
        *map(_line, rows),
        "",
    ]
    return "\n".join(lines)


def _missing(rows: list[dict[str, Any]]) -> list[str]:
    """What the verdict does not speak of."""
    there = {(row["model"], row["precision"], row["method"]) for row in rows}
    lacks = [
        f"{model} in {precision} ({count} of {len(METHODS)})"
        for model, precision in itertools.product(MODELS, PRECISIONS)
        if (count := sum((model, precision, method) not in there for method in METHODS))
    ]
    return [f"Methods not measured yet: {', '.join(lacks)}."] if lacks else []


def _line(row: dict[str, Any]) -> str:
    seconds = row["seconds"]
    options = "".join(f" {value}" for value in row["options"].values())
    cells = [
        row["model"],
        row["device"],
        row["precision"],
        f"`{row['method']}`{options}",
        f"{1e3 * statistics.median(seconds['dense']):,.0f} ms",
        *(
            "{:.2f} ({:.2f} to {:.2f})".format(*ratio(seconds, kind))
            for kind in ("plain", "rounded")
        ),
        str(len(seconds["dense"])),
    ]
    return f"| {' | '.join(cells)} |"


def _place(row: dict[str, Any]) -> tuple[int, ...]:
    """In the order in which runs are asked for."""
    return (
        list(MODELS).index(row["model"]),
        PRECISIONS.index(row["precision"]),
        list(METHODS).index(row["method"]),
    )


def main() -> int:
    """Do the runs that are missing, then write the page; 0 where the limit is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.refine")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--precisions", nargs="*", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--steps", type=int, help="of each kind; default: by the model")
    asked = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    there = {(row["model"], row["method"], row["precision"]) for row in rows}
    for model in asked.models:
        steps = asked.steps or MODELS[model]
        for precision in asked.precisions:
            for method in asked.methods:
                if (model, method, precision) not in there:
                    rows = sorted([*rows, run(model, method, precision, steps)], key=_place)
                    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    PAGE.write_text(page(rows))
    print(page(rows))
    kinds = ("plain", "rounded")
    return 0 if all(ratio(r["seconds"], k)[0] <= LIMIT for r in rows for k in kinds) else 1


if __name__ == "__main__":
    sys.exit(main())
