"""What the registry's routes take and give."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from shared.wire import ModelName

DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
Suffix = Annotated[str, StringConstraints(min_length=1, max_length=200)]

#: Tensors that are no parameters in common frameworks, by the end of their names.
USUAL_BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "mask")


def _example(value: dict[str, Any], from_rows: bool = False) -> ConfigDict:
    return ConfigDict(
        json_schema_extra={"examples": [value]}, from_attributes=from_rows, extra="forbid"
    )


class ModelIn(BaseModel):
    """A model to create."""

    model_config = _example(
        {"name": "digits", "architecture": "vgg_small", "arguments": {"classes": 10}}
    )

    name: ModelName
    architecture: str | None = Field(
        None,
        max_length=200,
        description="One of the zoo, or `module:factory`; without it a model can be deployed, "
        "not refined.",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of the architecture."
    )
    buffers: list[Suffix] = Field(
        default_factory=lambda: list(USUAL_BUFFERS),
        max_length=100,
        description="Without an architecture: ends of the names of tensors that are no "
        "parameters; they may hold infinities.",
    )


class TensorOut(BaseModel):
    """dtype as in safetensors, and shape."""

    dtype: str
    shape: list[int]


class ModelOut(BaseModel):
    """A model. Its arguments and schema are those of the newest version."""

    model_config = _example(
        {
            "id": 1,
            "name": "digits",
            "architecture": "vgg_small",
            "arguments": {"classes": 10},
            "buffers": list(USUAL_BUFFERS),
            "schema": {"conv1.weight": {"dtype": "F32", "shape": [64, 3, 3, 3]}},
            "schema_digest": DIGEST,
            "created_at": "2026-03-01T10:00:00Z",
        },
        from_rows=True,
    )

    id: int
    name: str
    architecture: str | None
    arguments: dict[str, Any]
    buffers: list[str]
    tensors: dict[str, TensorOut] | None = Field(alias="schema")
    schema_digest: str | None
    created_at: datetime


class VersionOut(BaseModel):
    """An immutable set of weights."""

    model_config = _example(
        {
            "id": 2,
            "model": "digits",
            "number": 2,
            "weights_digest": DIGEST,
            "schema_digest": DIGEST,
            "arguments": {"classes": 10},
            "size_bytes": 5_112_344,
            "source": "refined",
            "parent": 1,
            "approximates": None,
            "metrics": {"accuracy": 0.962},
            "created_at": "2026-03-01T10:10:00Z",
            "removed_at": None,
            "released_at": "2026-03-01T10:20:00Z",
            "withdrawn_at": None,
        }
    )

    id: int
    model: str
    number: int
    weights_digest: str
    schema_digest: str
    arguments: dict[str, Any] | None = Field(
        description="Of the architecture, as the weights fit it; null for models without one."
    )
    size_bytes: int = Field(description="Of the safetensors file.")
    source: Literal["uploaded", "refined", "encoded"]
    parent: int | None = Field(description="Number of the version that it was made from.")
    approximates: int | None = Field(description="Number of the version that it stands for.")
    metrics: dict[str, Any]
    created_at: datetime
    removed_at: datetime | None = Field(description="When the weights were removed for their age.")
    released_at: datetime | None = Field(
        description="Since when the release key has it signed: devices install no other."
    )
    withdrawn_at: datetime | None = Field(description="When it was taken back, for ever.")


class DatasetIn(BaseModel):
    """A dataset to register; it is opened and fingerprinted."""

    model_config = _example({"name": "field-week-9", "uri": "/data/field-week-9.parquet"})

    name: ModelName
    uri: str = Field(
        min_length=1,
        max_length=2000,
        description="Folder of images by class, npz, or Parquet; under WEFT_DATASET_ROOTS.",
    )


class DatasetOut(BaseModel):
    """A dataset that can be trained and measured on."""

    model_config = _example(
        {
            "id": 1,
            "name": "field-week-9",
            "uri": "/data/field-week-9.parquet",
            "fingerprint": DIGEST,
            "rows": 50_000,
            "classes": ["cat", "dog"],
            "created_at": "2026-03-01T10:00:00Z",
        },
        from_rows=True,
    )

    id: int
    name: str
    uri: str
    fingerprint: str
    rows: int
    classes: list[str]
    created_at: datetime
