"""Training from scratch: the first version of a model, for demonstrations and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from server.refine import batchnorm
from server.refine.batches import Batches
from server.refine.checkpoint import Checkpoint
from server.refine.effective import dense_clone
from server.refine.loop import Report, fit
from server.refine.recipe import Recipe
from server.refine.start import Start
from server.refine.weights import State
from server.registry.opening import ImageDataset
from server.zoo import get
from server.zoo.architecture import learnable

#: The highest learning rate where the recipe says none.
RATE = 5e-3


def train_initial(
    architecture: str,
    arguments: Mapping[str, Any],
    dataset: ImageDataset,
    recipe: Recipe,
    report: Report = lambda _line: None,
    folder: Path | None = None,
) -> State:
    """Train a fresh model densely; returns its tensors by first names, to be saved by `save_state`.

    BatchNorm's statistics are re-estimated at the end. `folder` takes the checkpoint, from which an
    interrupted training goes on; None: keeps none.
    """
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    module = get(architecture).build(arguments)
    dtypes = {name: tensor.dtype for name, tensor in module.state_dict().items()}
    module.float().to(device)
    clone = dense_clone(
        Start(module, dtypes, frozenset(learnable(module)), frozenset()),
        recipe.learning_rate or RATE,
        device,
    )
    data, held_out = Batches.of(dataset, device).split(recipe.held_out, recipe.seed)
    run = {
        "architecture": architecture,
        "arguments": dict(arguments),
        "rows": len(data),
        "recipe": recipe.model_dump(),
    }
    checkpoint = Checkpoint(folder, run) if folder else None
    fit(clone, data, held_out, recipe, report, checkpoint, stage="initial")
    with clone.applied() as trained:
        batchnorm.reestimate(trained, data)
    return {name: tensor.to(dtypes[name]) for name, tensor in clone.state().items()}
