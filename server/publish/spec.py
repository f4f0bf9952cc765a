"""The folder of a refinement: what the child is told, and what it answers.

spec.json            JobSpec, written by the server
base.safetensors     the base version
checkpoint*          the child's own
package.weft         the update package                         ┐
decoded.safetensors  the weights that a device will have         ├ results
result.json          Result, written last: when it is there, all ┘ are whole
curve.json, trial-*  of `auto`: what was measured, and its trials (see `budget.run`)
error.json           {"code", "message", "todo"}, where the child failed
log.txt              the child's stderr
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from server.refine.spec import JobSpec

SPEC = "spec.json"
BASE = "base.safetensors"
STATISTICS = "statistics.safetensors"
PACKAGE = "package.weft"
DECODED = "decoded.safetensors"
UNFOLDED = "unfolded.safetensors"
RESULT = "result.json"
ERROR = "error.json"
LOCK = "lock"


class Task(BaseModel):
    """One refinement, complete: the child needs neither database nor settings."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="Name of the model, for the package.")
    job: JobSpec


class Result(BaseModel):
    """What came out. Digests in hex; accuracies are shares between 0 and 1."""

    model_config = ConfigDict(extra="forbid")

    method: str | None = Field(None, description="Of the package; null: the one asked for.")
    options: dict[str, Any] = Field(default_factory=dict, description="Of that method.")
    package_bytes: int
    full_bytes: int
    learnable_count: int
    base_digest: str
    result_digest: str
    metrics: dict[str, Any] = Field(
        description="accuracy_before, accuracy_refined (before coding), accuracy_after (decoded), "
        "per_class_before, per_class_after, negative_flips, images, seconds."
    )
    tensors: dict[str, dict[str, Any]] = Field(description="Plan and symbols of each tensor.")
    coder: str = Field(description="Of the symbols.")
    golden: dict[str, Any] | None = Field(None, description="Samples that the package carries.")


def sync(path: Path) -> None:
    """Make the bytes of a written file durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_durably(path: Path, text: str) -> None:
    """Write `text` so that the file is either as before or whole, whatever happens."""
    beside = path.with_name(f".{path.name}")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
