"""What a refinement is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from server.refine.recipe import Recipe


class JobSpec(BaseModel):
    """All that a refinement needs to know. `model_modules` are the operator's allowed modules."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    target_arguments: dict[str, Any] | None = Field(
        None, description="Of the target, where it differs from the base: another head."
    )
    model_modules: tuple[str, ...] = ()
    base: Path = Field(description="Weights file of the base.")
    statistics: Path | None = Field(
        None, description="The base's BatchNorm statistics; see `server.refine.batchnorm`."
    )
    dataset: str = Field(description="URI of the data to train on.")
    evaluation_dataset: str | None = Field(
        None, description="URI of the data to measure on; else the held-out share."
    )
    fingerprints: dict[str, str] = Field(
        default_factory=dict, description="URI -> what the data must hold; others are not checked."
    )
    method: str
    options: dict[str, Any] = Field(default_factory=dict)
    recipe: Recipe = Field(default_factory=Recipe)
