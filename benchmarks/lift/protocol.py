"""Initial models and runs of a setting."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import keeping
from benchmarks.lift.candidates import Candidate
from benchmarks.lift.settings import COMMON, ROOT, Setting
from server.publish import spec
from server.publish.pipeline import Report, refine_package_evaluate
from server.refine.initial import train_initial
from server.refine.recipe import Recipe
from server.refine.weights import save_state
from server.registry.opening import open_dataset

RUNS = ROOT / "benchmarks" / "results" / "lift"
WORK = ROOT / "var" / "bench" / "lift"

Measured = dict[str, Any]

#: What is done in a run's folder, as `spec.Task` there tells; see `packaged`.
Way = Callable[[spec.Task, Path, Report], Measured]


def packaged(_task: spec.Task, folder: Path, report: Report) -> Measured:
    """Refine, package, decode and judge as a server's child process does.

    It goes on from the folder's checkpoint where an earlier one was interrupted.
    """
    result = refine_package_evaluate(folder, report)
    return {
        "package_bytes": result.package_bytes,
        "full_bytes": result.full_bytes,
        "learnable_count": result.learnable_count,
        "before": result.metrics["accuracy_before"],
        "after": result.metrics["accuracy_after"],
        "seconds": round(result.metrics["seconds"], 1),
    }


@dataclass(frozen=True)
class Protocol:
    """The runs of a setting, each one JSON: a run that is there is not repeated.

    `ways` are those of methods that send no package.
    """

    setting: Setting
    command: str = "make bench-lift"
    ways: Mapping[str, Way] = field(default_factory=dict)

    @property
    def runs(self) -> Path:
        """Where results lie."""
        return RUNS / self.setting.name

    @property
    def work(self) -> Path:
        """Where models and packages lie."""
        return WORK / self.setting.name

    def initial(self, number: int) -> Path:
        """An initial model, as deployed; trained where it is not there yet."""
        path = self.work / f"initial-{number}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            own = self.setting
            recipe = Recipe.model_validate({**COMMON, **own.initial, "seed": number})
            data = open_dataset(own.part(0, own.deployed))
            started = self.work / path.stem
            started.mkdir(exist_ok=True)
            state = train_initial(
                own.architecture, own.arguments, data, recipe, keeping.tell, started
            )
            save_state(path, state)
        return path

    def tune(self, candidate: Candidate) -> dict[str, Any]:
        """A short training on a part of the training rows, judged on the others."""
        own = self.setting
        kept = own.rows - own.held_out
        data = own.part(0, kept), own.part(kept, own.rows)
        return self._run("tune", candidate, 0, 0, own.tuning, *data)

    def measure(
        self, candidate: Candidate, model: int, seed: int, epochs: int | None = None
    ) -> dict[str, Any]:
        """A full training, judged on the test set; of other `epochs` under a name that says so."""
        own = self.setting
        data = own.all_rows, str(own.test)
        stage = "test" if epochs is None else f"epochs{epochs}"
        return self._run(stage, candidate, model, seed, epochs or own.epochs, *data)

    def measured(self) -> list[dict[str, Any]]:
        """The full runs that this command made: another may hold other sizes against each other."""
        rows = [json.loads(path.read_text()) for path in sorted(self.runs.glob("test-*.json"))]
        return [row for row in rows if row["command"] == self.command]

    def folder(self, stage: str, candidate: Candidate, model: int, seed: int) -> Path:
        """Where a run left its package and its weights."""
        return self.work / f"{stage}-{candidate.name}-{model}-{seed}"

    def _run(
        self,
        stage: str,
        candidate: Candidate,
        model: int,
        seed: int,
        epochs: int,
        data: str,
        judge: str,
    ) -> dict[str, Any]:
        """The JSON of a run, made where it is not there yet: as a server's child process would."""
        folder = self.folder(stage, candidate, model, seed)
        path = self.runs / f"{folder.name}.json"
        there = keeping.read(path)
        if there is not None:
            return there
        folder.mkdir(parents=True, exist_ok=True)
        job = {
            "architecture": self.setting.architecture,
            "arguments": self.setting.arguments,
            "base": str(self.initial(model)),
            "dataset": data,
            "evaluation_dataset": judge,
            "method": candidate.method,
            "options": candidate.options,
            "recipe": {
                **COMMON, **self.setting.recipe, "epochs": epochs, **candidate.recipe, "seed": seed
            },
        }  # fmt: skip
        task = spec.Task.model_validate({"model": self.setting.architecture, "job": job})
        (folder / spec.SPEC).write_text(task.model_dump_json())
        began = time.process_time()
        found = self.ways.get(candidate.method, packaged)(task, folder, keeping.tell)
        row = {
            "stage": stage,
            "setting": self.setting.name,
            "family": candidate.family,
            "candidate": candidate.name,
            "method": candidate.method,
            "options": candidate.options,
            "recipe": task.job.recipe.model_dump(),
            "model": model,
            "seed": seed,
            "bytes": candidate.bytes(found["package_bytes"], found["learnable_count"]),
            **found,
            "cpu_seconds": round(time.process_time() - began, 1),
            "device": device(),
        }
        return keeping.keep(path, row, self.command)


def device() -> str:
    """What trains here: `cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
