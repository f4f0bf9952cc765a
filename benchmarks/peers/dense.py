"""Dense retraining with a decay towards the base: what codecs are given to code."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import keeping
from benchmarks.lift.candidates import at_rate
from benchmarks.lift.protocol import Protocol
from benchmarks.lift.settings import COMMON
from server import zoo
from server.publish import spec as left
from server.refine import batchnorm
from server.refine.job import Job
from server.refine.spec import JobSpec
from server.refine.weights import State, load_state, save_state

#: Pulls towards the base, per unit of rate. Without one, changes wander farther the longer a
#: training is, and cost the more bytes.
DECAYS = (0.0, 0.1, 0.3)
#: That which `make bench-lift` finds for `dense`.
RATE = 3e-2


@dataclass(frozen=True)
class Dense:
    """A dense retraining of a setting: its data, its decay, where its weights lie.

    `stage` is `tune` (short, without the held-out rows, judged on those), `search` (the same, as
    long as in the end: what a codec has to code depends on it) or `test`.
    """

    protocol: Protocol
    stage: str
    decay: float
    model: int
    seed: int

    @property
    def folder(self) -> Path:
        """Where the weights lie, if they are not of `make bench-lift`."""
        name = f"{self.stage}-d{self.decay:g}-{self.model}-{self.seed}"
        return self.protocol.work.parent.parent / "peers" / self.protocol.setting.name / name

    @property
    def recipe(self) -> dict[str, Any]:
        """Of the training: the setting's, as every method has it."""
        own = self.protocol.setting
        return {
            **COMMON,
            **own.recipe,
            "epochs": own.tuning if self.stage == "tune" else own.epochs,
            "learning_rate": RATE,
            "weight_decay": self.decay,
            "seed": self.seed,
        }

    @property
    def data(self) -> tuple[str, str]:
        """Addresses of the rows that are trained on, and of those that judge."""
        own = self.protocol.setting
        kept = own.rows - own.held_out
        if self.stage == "test":
            return str(own.train), str(own.test)
        return own.part(0, kept), own.part(kept, own.rows)

    def job(self, folder: Path | None = None) -> Job:
        """The refinement, with its data in memory. `folder` takes the checkpoint."""
        own = self.protocol.setting
        rows, judge = self.data
        spec = {
            "architecture": own.architecture,
            "arguments": own.arguments,
            "base": self.protocol.initial(self.model),
            "dataset": rows,
            "evaluation_dataset": judge,
            "method": "full",
            "recipe": self.recipe,
        }
        return Job(JobSpec.model_validate(spec), folder)

    def trained(self) -> tuple[State, float]:
        """The retrained weights, and the seconds they took; trained where they are not there.

        BatchNorm is not folded; its statistics are to be re-estimated.
        """
        plain = self._plain() if self.stage == "test" and not self.decay else None
        return plain or self._own()

    def _plain(self) -> tuple[State, float] | None:
        """Without decay: a dense run of `make bench-lift`; None where only its figures are left."""
        candidate = at_rate("dense", RATE)
        row = self.protocol.measure(candidate, self.model, self.seed)
        folder = self.protocol.folder(self.stage, candidate, self.model, self.seed)
        if not (folder / left.DECODED).exists():
            return None
        state = load_state(folder / left.DECODED)
        module = zoo.get(self.protocol.setting.architecture).build(self.protocol.setting.arguments)
        norms = batchnorm.find_norms(module.float(), torch.zeros(1, 3, 32, 32))
        unfolded = batchnorm.unfold(state, load_state(folder / left.UNFOLDED), norms)
        return state | unfolded, float(row["seconds"])

    def _own(self) -> tuple[State, float]:
        path, took = self.folder / "trained.safetensors", self.folder / "trained.json"
        if not took.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            began = time.process_time()
            save_state(path, self.job(self.folder).train(keeping.tell).state)
            took.write_text(json.dumps({"seconds": time.process_time() - began}))
        return load_state(path), float(json.loads(took.read_text())["seconds"])

    def row(
        self, family: str, size: int, before: float, after: float, seconds: float
    ) -> dict[str, Any]:
        """A result of this training, as `benchmarks.lift` keeps its own."""
        return {
            "stage": self.stage,
            "setting": self.protocol.setting.name,
            "family": family,
            "candidate": family,
            "recipe": self.recipe,
            "model": self.model,
            "seed": self.seed,
            "bytes": size,
            "before": before,
            "after": after,
            "seconds": round(seconds, 1),
        }
