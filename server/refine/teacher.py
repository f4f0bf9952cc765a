"""Softer targets than labels: what the base, retrained densely, answers to the training images.

A change under a budget of bytes is a choice of few weights out of many. The gradient of one weight,
even over all the data, is small against its noise, and most of that noise is the labels': an answer
that gives chances for all classes has far less of it (distillation, Hinton et al. 2015). The server
can afford the dense retraining that it cannot send.

The teacher sees each image once, as it is and mirrored where trainings mirror; so a step costs what
it costs without a teacher.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.nn.functional import one_hot

from server.refine.batches import Batches
from server.refine.recipe import Recipe

_BATCH = 500


def lesson(recipe: Recipe) -> Recipe:
    """How a teacher is trained: on the same images, at the rates of `direct`."""
    own = {"learning_rate": None, "rounding": 0.0, "matrices": True, "distillation": 0.0}
    length = {"epochs": recipe.teacher_epochs or recipe.epochs, "teacher_epochs": None}
    return recipe.model_copy(update=own | length)


def taught(data: Batches, teacher: nn.Module, recipe: Recipe) -> Batches:
    """The data with targets of which `recipe.distillation` is the teacher's."""
    teacher.eval()
    with torch.inference_mode():
        answers = [_answer(teacher, images, recipe.flip) for images, _ in data.plain(_BATCH)]
    told = torch.cat(answers).clone()  # (N, classes)
    truth = one_hot(data.labels, told.shape[1]).float()
    return replace(data, targets=truth.lerp(told, recipe.distillation))


def _answer(teacher: nn.Module, images: torch.Tensor, mirrored: bool) -> torch.Tensor:
    chances: torch.Tensor = teacher(images).softmax(1)
    return (chances + teacher(images.flip(3)).softmax(1)) / 2 if mirrored else chances
