"""What the routes of refinements and packages take and give."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from server.tables import Package, Refinement
from shared.golden import MAX_ELEMENTS
from shared.wire import ModelName

#: Elements of one input of golden samples.
MAX = MAX_ELEMENTS // 64

DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def _example(value: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [value]}, extra="forbid")


class MethodChoice(BaseModel):
    """A method and its options; see `weft methods list`.

    A refinement also takes `auto`: `max_bytes` (of the package), `min_accuracy` (percent) or both,
    and `trials` (most trainings, 1 to 5).
    """

    model_config = _example({"id": "ka", "options": {"rank": 3, "bits": 8}})

    id: str
    options: dict[str, Any] = Field(default_factory=dict)


class RefinementIn(BaseModel):
    """A refinement to put into the queue."""

    model_config = _example(
        {
            "model": "digits",
            "base": 1,
            "dataset": "field-week-9",
            "evaluation_dataset": "field-test",
            "method": {"id": "ka", "options": {"rank": 3}},
            "recipe": {"epochs": 8, "seed": 0},
        }
    )

    model: ModelName
    base: int | None = Field(None, ge=1, description="Number of the base; the newest by default.")
    dataset: ModelName = Field(description="What to train on.")
    evaluation_dataset: ModelName | None = Field(
        None, description="What to measure on; without it, the held-out share of `dataset`."
    )
    method: MethodChoice
    recipe: dict[str, Any] = Field(default_factory=dict, description="How to train.")
    target_arguments: dict[str, Any] | None = Field(
        None,
        description="Arguments of the architecture in which the target differs from the base, "
        "as for another head.",
        examples=[{"classes": 10}],
    )


class Failure(BaseModel):
    """Why a refinement failed, and what to do about it."""

    code: str
    message: str
    todo: str


class RefinementOut(BaseModel):
    """A refinement. `progress` is the newest line that its process reported."""

    model_config = _example(
        {
            "id": 1,
            "model": "digits",
            "base": 1,
            "dataset": "field-week-9",
            "evaluation_dataset": None,
            "method": {"id": "ka", "options": {"rank": 3}},
            "recipe": {"epochs": 8},
            "target_arguments": None,
            "state": "running",
            "progress": {"stage": "refine", "epoch": 2, "epochs": 8, "loss": 0.41},
            "error": None,
            "attempts": 1,
            "target": None,
            "package_id": None,
            "created_at": "2026-03-01T10:00:00Z",
            "started_at": "2026-03-01T10:00:01Z",
            "finished_at": None,
        }
    )

    id: int
    model: str
    base: int = Field(description="Number of the version that it starts from.")
    dataset: str
    evaluation_dataset: str | None
    method: MethodChoice
    recipe: dict[str, Any]
    target_arguments: dict[str, Any] | None
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    progress: dict[str, Any] | None
    error: Failure | None
    attempts: int = Field(description="How often its process was started.")
    target: int | None = Field(description="Number of the version that came out.")
    package_id: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class GoldenIn(BaseModel):
    """Golden samples that a package is to carry: devices check the new weights by them."""

    model_config = _example({"count": 24, "shape": [1, 28, 28]})

    count: int = Field(ge=1, le=64, description="How many; the package grows by at most 200 bytes.")
    shape: list[int] | None = Field(
        None, min_length=1, max_length=6, description="Of one input: all are drawn from a seed."
    )
    dataset: ModelName | None = Field(
        None, description="Take its first rows, which devices must have as well."
    )

    @model_validator(mode="after")
    def _one_source(self) -> GoldenIn:
        if (self.shape is None) == (self.dataset is None):
            raise ValueError("give a shape or a dataset")
        if not all(0 < n <= 1 << 16 for n in self.shape or ()) or math.prod(self.shape or ()) > MAX:
            raise ValueError("the shape is none, or too large")
        return self


class PackageIn(BaseModel):
    """A package to build between two versions that exist."""

    model_config = _example(
        {
            "model": "digits",
            "base": 1,
            "target": 2,
            "method": {"id": "direct", "options": {"bits": 6}},
            "dataset": "field-test",
            "max_accuracy_drop": 0.5,
        }
    )

    model: ModelName
    base: int | None = Field(None, ge=1, description="Number; none for `full`.")
    target: int = Field(ge=1, description="Number of the version to lead to.")
    method: MethodChoice
    dataset: ModelName | None = Field(
        None, description="Measure a lossy result on it, beside the target."
    )
    max_accuracy_drop: float | None = Field(
        None,
        ge=0,
        le=100,
        description="Percentage points that the result may lie below the target on the dataset; "
        "else nothing is published.",
    )
    min_accuracy: float | None = Field(
        None, ge=0, le=100, description="Percent that the result must reach on the dataset."
    )
    golden: GoldenIn | None = Field(None, description="Samples for devices to check it by.")

    @model_validator(mode="after")
    def _measured_on_something(self) -> PackageIn:
        asked = self.max_accuracy_drop is not None or self.min_accuracy is not None
        if asked and self.dataset is None:
            raise ValueError("an accuracy is asked for: name the dataset to measure it on")
        return self


class PackageOut(BaseModel):
    """An update package. A lossy one leads to a version of its own, not to the one asked for."""

    model_config = _example(
        {
            "id": 1,
            "model": "digits",
            "base": 1,
            "target": 2,
            "method": "ka",
            "options": {"rank": 3},
            "sha256": DIGEST,
            "size_bytes": 9648,
            "learnable_count": 7413,
            "metrics": {"accuracy_before": 0.764, "accuracy_after": 0.777},
            "state": "published",
            "created_at": "2026-03-01T10:10:00Z",
        }
    )

    id: int
    model: str
    base: int | None = Field(description="Number; null: it needs no base.")
    target: int
    method: str
    options: dict[str, Any]
    sha256: str
    size_bytes: int
    learnable_count: int | None = Field(description="The paper's count of learnable parameters.")
    metrics: dict[str, Any]
    state: Literal["built", "published", "removed"]
    created_at: datetime


def describe_refinement(row: Refinement) -> RefinementOut:
    """The refinement as the API shows it."""
    return RefinementOut(
        id=row.id,
        model=row.model.name,
        base=row.base_version.number,
        dataset=row.dataset.name,
        evaluation_dataset=row.evaluation_dataset.name if row.evaluation_dataset else None,
        method=MethodChoice.model_validate(row.method),
        recipe=row.recipe,
        target_arguments=row.target_arguments,
        state=row.state,
        progress=row.progress,
        error=Failure.model_validate(row.error) if row.error else None,
        attempts=row.attempts,
        target=row.target_version.number if row.target_version else None,
        package_id=row.package_id,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def describe_package(row: Package) -> PackageOut:
    """The package as the API shows it."""
    return PackageOut(
        id=row.id,
        model=row.model.name,
        base=row.base_version.number if row.base_version else None,
        target=row.target_version.number,
        method=row.method,
        options=row.options,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        learnable_count=row.learnable_count,
        metrics=row.metrics,
        state=row.state,
        created_at=row.created_at,
    )
