"""Runs: a refinement of VGG-small as a server makes it, under a variant's patches."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks import keeping
from benchmarks.ablation.tail import cut
from benchmarks.ablation.variants import Variant
from benchmarks.lift.settings import ROOT, SETTINGS
from server import zoo
from server.publish import spec
from server.publish.pipeline import refine_package_evaluate
from server.refine.batches import Batches
from server.refine.initial import train_initial
from server.refine.recipe import Recipe
from server.refine.weights import load_into, load_state, save_state
from server.registry.opening import open_dataset

RUNS = ROOT / "benchmarks" / "results" / "ablation"
WORK = ROOT / "var" / "bench" / "ablation"
SETTING = SETTINGS["vgg_small"]
FIRST = {"epochs": 40, "crop": 4, "flip": True, "held_out": 0.0, "threads": 1}
TAIL = "benchmarks.ablation.tail:tail"
RECIPE: dict[str, Any] = {"epochs": 4, "held_out": 0.0, "threads": 1}
WHOLE = {"crop": 2, "flip": True, "precision": "bfloat16"}
_BATCH = 500


def initial(number: int) -> Path:
    """An initial model, as deployed; trained where it is not there yet."""
    path = WORK / f"initial-{number}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        recipe = Recipe.model_validate({**FIRST, "seed": number})
        data = open_dataset(SETTING.part(0, SETTING.deployed))
        save_state(path, train_initial(SETTING.architecture, {}, data, recipe))
    return path


def _tail(number: int) -> tuple[Path, Path]:
    """Weights and data of a model's tail."""
    folder = WORK / f"tail-{number}"
    done = folder / "tail.safetensors", folder / "maps.npz"
    if all(path.exists() for path in done):
        return done
    return cut(load_state(initial(number)), open_dataset(str(SETTING.train)), folder)


def _subject(variant: Variant, number: int) -> dict[str, Any]:
    """What a job says of the model that is trained, and of its data."""
    kept = SETTING.rows - SETTING.held_out
    if variant.whole:
        return {
            "architecture": SETTING.architecture,
            "base": str(initial(number)),
            "dataset": SETTING.part(0, kept),
            "evaluation_dataset": SETTING.part(kept, SETTING.rows),
            "recipe": {**RECIPE, **WHOLE},
        }
    base, data = _tail(number)
    return {
        "architecture": TAIL,
        "model_modules": ["benchmarks.ablation.tail"],
        "base": str(base),
        "dataset": f"{data}#rows=0:{kept}",
        "evaluation_dataset": f"{data}#rows={kept}:{SETTING.rows}",
        "recipe": RECIPE,
    }


def run(variant: Variant, model: int, seed: int) -> dict[str, Any]:
    """The JSON of a run, made where it is not there yet."""
    path = RUNS / f"{variant.name}-{model}-{seed}.json"
    there = keeping.read(path)
    if there is not None:
        return there
    folder = WORK / path.stem
    folder.mkdir(parents=True, exist_ok=True)
    subject = _subject(variant, model)
    recipe = {**subject["recipe"], **variant.recipe, "seed": seed}
    job = {**subject, "method": "sparse", "options": variant.options, "recipe": recipe}
    task = spec.Task.model_validate({"model": "ablation", "job": job})
    (folder / spec.SPEC).write_text(task.model_dump_json())
    with (variant.patch or contextlib.nullcontext)():
        result = refine_package_evaluate(folder, lambda _line: None)
    held_out = Batches.of(open_dataset(subject["evaluation_dataset"]), torch.device("cpu"))
    module = zoo.get(task.job.architecture, task.job.model_modules).build({})
    row = {
        "variant": variant.name,
        "options": variant.options,
        "recipe": task.job.recipe.model_dump(),
        "model": model,
        "seed": seed,
        "bytes": result.package_bytes,
        "before": result.metrics["accuracy_before"],
        "after": result.metrics["accuracy_after"],
        "loss_before": _loss(module, task.job.base, held_out),
        "loss_after": _loss(module, folder / spec.DECODED, held_out),
        "seconds": round(result.metrics["seconds"], 1),
    }
    return keeping.keep(path, row, "make bench-ablation")


def _loss(module: nn.Module, weights: Path, data: Batches) -> float:
    """The mean cross entropy of the module with these weights."""
    load_into(module.float().eval(), load_state(weights))
    with torch.inference_mode():
        losses = [cross_entropy(module(x), y, reduction="sum") for x, y in data.plain(_BATCH)]
    return float(sum(losses)) / len(data)
