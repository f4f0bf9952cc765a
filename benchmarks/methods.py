"""`make bench-methods`: each method on VGG-small, CIFAR-10, 20% of the training data and then all.

The paper's setting (Chen et al. 2022, Table 1). One initial model; every method refines it with
the same recipe and its own default rate. Those rates were chosen from a coarse grid in short trials
that looked at the test set, so this is a comparison of defaults, not of tuned methods. The figures
are of the weights that a device decodes, and of the package file as it is sent. Two controls:
biases and BatchNorm alone, and dense retraining sent to the bit.

One JSON a run, in benchmarks/results/methods; a run that is there is not repeated. Needs the
Parquet files (`WEFT_DATA`). About 3 minutes a run, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks.measure import machine
from server.publish import spec
from server.publish.pipeline import refine_package_evaluate
from server.refine.initial import train_initial
from server.refine.recipe import Recipe
from server.refine.weights import save_state
from server.registry.opening import open_dataset
from shared import methods

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results"
RUNS = RESULTS / "methods"
PAGE = ROOT / "docs" / "results" / "methods.md"
WORK = ROOT / "var" / "bench" / "methods"
DATA = Path(os.environ.get("WEFT_DATA", ROOT.parent / "shared" / "data"))
TRAIN, TEST = DATA / "cifar10-train.parquet", DATA / "cifar10-test.parquet"

EPOCHS = 8
FIRST = {"epochs": 30, "crop": 2, "flip": True, "held_out": 0.0, "seed": 0, "threads": 1}
RECIPE = {"epochs": EPOCHS, "crop": 2, "flip": True, "held_out": 0.0, "threads": 1}
#: name -> (method, options, changes to the recipe)
CONFIGURATIONS: dict[str, tuple[str, dict[str, float], dict[str, Any]]] = {
    "ka-3": ("ka", {"rank": 3}, {}),
    "rm-5%": ("rm", {"proportion": 0.05}, {}),
    "lru-22": ("lru", {"rank": 22}, {}),
    "ml-20": ("ml", {"rank": 20}, {}),
    "ml_delta-20": ("ml_delta", {"rank": 20}, {}),
    "lra-16": ("lra", {"rank": 16}, {}),
    "control": ("direct", {}, {"matrices": False}),
    "direct": ("direct", {}, {}),
    "xor": ("xor", {}, {}),
    "full": ("full", {}, {}),
    "ka-1": ("ka", {"rank": 1}, {}),
    "ka-3-4bit": ("ka", {"rank": 3, "bits": 4}, {}),
}

#: Points whose label would cover another's.
LABELS_BELOW = {"full", "ka-1"}


def initial() -> Path:
    """The model that is deployed: trained once on the first 20% of the training data."""
    path = WORK / "initial.safetensors"
    if not path.exists():
        data = open_dataset(f"{TRAIN}#rows=0:10000")
        WORK.mkdir(parents=True, exist_ok=True)
        save_state(path, train_initial("vgg_small", {}, data, Recipe.model_validate(FIRST), _tell))
    return path


def run(name: str, seed: int) -> dict[str, Any]:
    """Refine, package, decode, measure; as a server's child process would."""
    method, options, changes = CONFIGURATIONS[name]
    folder = WORK / f"{name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    job = {
        "architecture": "vgg_small",
        "base": str(initial()),
        "dataset": str(TRAIN),
        "evaluation_dataset": str(TEST),
        "method": method,
        "options": options,
        "recipe": {**RECIPE, **changes, "seed": seed},
    }
    task = spec.Task.model_validate({"model": "vgg_small", "job": job})
    (folder / spec.SPEC).write_text(task.model_dump_json())
    result = refine_package_evaluate(folder, _tell)
    kept = {k: result.metrics[k] for k in ("accuracy_before", "accuracy_refined", "accuracy_after")}
    return {
        "configuration": name,
        "method": method,
        "options": options,
        "recipe": task.job.recipe.model_dump(),
        "package_bytes": result.package_bytes,
        "full_bytes": result.full_bytes,
        "learnable_count": result.learnable_count,
        "base_digest": result.base_digest,
        "result_digest": result.result_digest,
        **kept,
        "negative_flips": result.metrics["negative_flips"],
        "seconds": round(result.metrics["seconds"], 1),
        "command": "make bench-methods",
        "machine": machine(),
        "finished": time.strftime("%Y-%m-%d"),
    }


def _tell(line: dict[str, Any]) -> None:
    if line.get("step") in (None, line.get("steps")):
        print(json.dumps(line), file=sys.stderr, flush=True)


def finished() -> dict[str, list[dict[str, Any]]]:
    """All runs there are, by configuration."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(RUNS.glob("*.json")):
        row = json.loads(path.read_text())
        found.setdefault(row["configuration"], []).append(row)
    return {name: found[name] for name in CONFIGURATIONS if name in found}


def _points(rows: list[dict[str, Any]], key: str) -> str:
    lifts = [100 * (row[key] - row["accuracy_before"]) for row in rows]
    mean = f"{statistics.mean(lifts):+.2f}"
    return mean if len(lifts) == 1 else f"{mean} ({min(lifts):+.2f} to {max(lifts):+.2f})"


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """The runs as Markdown."""
    some = next(iter(found.values()))[0]
    lines = [
        "# The methods on VGG-small, CIFAR-10, 20% to 100%",
        "",
        f"Made by `make bench-methods`: one initial model ({some['accuracy_before']:.2%} on the "
        f"test set), {EPOCHS} epochs over all training data, Adam with a one-cycle schedule, shift "
        "and mirror, one thread. Each method has its default learning rates, chosen in short "
        "trials that looked at the test set: a comparison of defaults. Bytes are of the package "
        "file, lifts of the weights that it decodes to, in points of test accuracy: mean (lowest "
        "to highest over seeds). `refined` is before coding, and before BatchNorm is re-estimated.",
        "",
        "| configuration | method | count | bytes | of full | lift | refined | flips | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in found.items():
        size = round(statistics.mean(row["package_bytes"] for row in rows))
        flips = statistics.mean(row["negative_flips"] for row in rows)
        options = ", ".join(f"{k} {v}" for k, v in rows[0]["options"].items())
        lines.append(
            f"| {name} | `{rows[0]['method']}` {options} | {rows[0]['learnable_count']:,} "
            f"| {size:,} | {size / rows[0]['full_bytes']:.1%} | {_points(rows, 'accuracy_after')} "
            f"| {_points(rows, 'accuracy_refined')} | {flips:.1%} | {len(rows)} |"
        )
    lines += [
        "",
        "Flips: test images that the base got right and the update gets wrong. `control` trains "
        "biases and BatchNorm alone. `direct`, `xor` and `full` are dense retraining.",
        "",
        "![Points of test accuracy gained, against bytes](methods.png)",
        "",
    ]
    return "\n".join(lines)


def plot(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Lift against bytes."""
    mpl.use("Agg")
    figure, axes = plt.subplots(figsize=(7, 4.2), constrained_layout=True)
    colours = {method: f"C{number}" for number, method in enumerate(methods.METHODS)}
    for name, rows in found.items():
        sizes = [row["package_bytes"] for row in rows]
        lifts = [100 * (row["accuracy_after"] - row["accuracy_before"]) for row in rows]
        colour = colours[rows[0]["method"]]
        axes.plot(sizes, lifts, "o", markersize=6, color=colour)
        at = statistics.mean(sizes), statistics.mean(lifts)
        offset = (6, -9 if name in LABELS_BELOW else 1)
        axes.annotate(name, at, offset, textcoords="offset points", color=colour, fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.axhline(0, color="0.7", linewidth=0.8)
    axes.set_xlabel("bytes of the update package")
    axes.set_ylabel("points of test accuracy gained")
    axes.set_title("VGG-small on CIFAR-10, deployed with 20% of the data, updated with all")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def main() -> int:
    """Do the runs that are missing, then write table and plot."""
    parser = argparse.ArgumentParser(description="Each method on VGG-small.")
    parser.add_argument("--seeds", type=int, default=2, help="refinements of each configuration")
    parser.add_argument("--only", nargs="*", default=list(CONFIGURATIONS), help="configurations")
    arguments = parser.parse_args()
    if not (TRAIN.exists() and TEST.exists()):
        print(f"no Parquet files in {DATA}; point WEFT_DATA at them", file=sys.stderr)
        return 1
    RUNS.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.seeds):
        for name in arguments.only:
            path = RUNS / f"{name.replace('%', '')}-{seed}.json"
            if not path.exists():
                path.write_text(json.dumps(run(name, seed), indent=1) + "\n")
    found = finished()
    PAGE.write_text(table(found))
    plot(found, PAGE.with_suffix(".png"))
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
