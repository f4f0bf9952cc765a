"""How a model is trained: the part of a refinement that is not its method."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

#: Share of the steps in which a one-cycle schedule rises, and where it starts.
_RISE = 0.25
_FIRST = 1 / 25


class Recipe(BaseModel):
    """Optimizer, schedule, data and seed of a training run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(8, ge=1, le=100_000, description="Passes over the training data.")
    batch_size: int = Field(128, ge=1, le=65536, description="Images of one step.")
    optimizer: Literal["adam", "sgd"] = Field(
        "adam", description="With decoupled weight decay. The default rates are for `adam`."
    )
    learning_rate: float | None = Field(
        None, gt=0, le=100, description="Highest rate of matrices; by default the method's own."
    )
    vector_rate: float = Field(
        3e-3, gt=0, le=100, description="Highest rate of biases and BatchNorm."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Of `sgd`.")
    schedule: Literal["one_cycle", "cosine", "constant"] = Field(
        "one_cycle", description="How the rate changes from step to step."
    )
    weight_decay: float = Field(
        0.0, ge=0, le=10, description="Pull of matrices towards the base, per unit of rate."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share taken from the true label.")
    distillation: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the targets from a densely retrained teacher, which takes its time.",
    )
    teacher_epochs: int | None = Field(
        None, ge=1, le=100_000, description="Of the teacher's training; by default `epochs`."
    )
    crop: int = Field(0, ge=0, le=64, description="Shift images by up to so many pixels.")
    flip: bool = Field(False, description="Mirror half of the images, left to right.")
    balanced: bool = Field(False, description="Draw all classes equally often.")
    held_out: float = Field(
        0.1, ge=0, le=0.9, description="Share of the data kept apart to measure on while training."
    )
    seed: int = Field(0, ge=0, lt=1 << 63, description="Of order, augmentation and start values.")
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; default: all.")
    rounding: float = Field(
        0.5, ge=0, le=1, description="Share of the training with weights rounded as they are sent."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Of the arithmetic while training; weights and measures stay float32.",
    )
    matrices: bool = Field(
        True, description="False trains only biases and BatchNorm: a control for comparisons."
    )
    vectors: bool = Field(
        True, description="False leaves biases and norms as they are, as LoRA is often used."
    )

    golden: int = Field(
        0,
        ge=0,
        le=64,
        description="Golden samples that the package carries, drawn in the shape of the data.",
    )

    @property
    def rounds_from(self) -> int:
        """The first epoch that is trained on what will be sent."""
        return self.epochs - round(self.epochs * self.rounding)

    def share(self, step: int, steps: int) -> float:
        """The learning rate of `step` out of `steps`, as a share of the highest."""
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "cosine":
            return _half_cosine(step / steps)
        rise = max(1.0, _RISE * steps)
        if step < rise:
            return _FIRST + (1 - _FIRST) * (1 - _half_cosine(step / rise))
        return _half_cosine((step - rise) / max(1.0, steps - rise))


def _half_cosine(x: float) -> float:
    """1 at 0, falling to 0 at 1."""
    return (1 + math.cos(math.pi * x)) / 2
