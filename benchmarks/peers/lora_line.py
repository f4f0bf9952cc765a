"""PEFT's LoRA in the peers' environment: trained in the loop of our own methods, batch for batch.

stdin: `{"setting", "recipe", "rank", "base", "dataset", "folder"}`. In the folder: `adapter`, the
tensors of the adapter as PEFT names them, and for each precision it may be sent in `float32` and
`float16`, the whole model that the adapter gives. stdout: `{"seconds"}`, of the processor.

Besides its factors, all that is no matrix is trained, as in every other method.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import peft  # type: ignore[import-not-found]
import torch
from torch import Tensor, nn

from benchmarks import keeping
from benchmarks.lift.settings import SETTINGS
from server import zoo
from server.refine.batches import Batches
from server.refine.effective import Clone, Trained
from server.refine.loop import fit
from server.refine.recipe import Recipe
from server.refine.weights import State, load_into, load_state, save_state, state_of
from server.registry.opening import open_dataset

_FACTOR = "lora_"


class Adapted(Clone):
    """A model with PEFT's adapters, as the loop wants it."""

    def __init__(self, module: Any, rate: float, vector_rate: float) -> None:
        self.module, self.matrices, self.price = module, {}, None
        self._rates = rate, vector_rate

    def trained(self) -> list[Trained]:
        """Factors at the method's rate, all else at that of vectors."""
        return [
            Trained(name, parameter, self._rates[_FACTOR not in name], decayed=False)
            for name, parameter in self.module.named_parameters()
            if parameter.requires_grad
        ]

    def __call__(self, images: Tensor, bfloat16: bool = False) -> Tensor:
        """Images (N, C, H, W) -> logits (N, classes), float32."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
            logits: Tensor = self.module(images)
        return logits.float()


def main() -> int:
    """Answer the request."""
    asked = json.load(sys.stdin)
    recipe = Recipe.model_validate(asked["recipe"])
    torch.set_num_threads(recipe.threads or 1)
    torch.manual_seed(recipe.seed)
    model = adapted(asked["setting"], asked["base"], asked["rank"])
    data = Batches.of(open_dataset(asked["dataset"]), torch.device("cpu"))
    clone = Adapted(model, recipe.learning_rate or 0.0, recipe.vector_rate)
    began = time.process_time()
    fit(clone, data, data.rows(torch.arange(0)), recipe, keeping.tell)
    _keep(model, Path(asked["folder"]))
    print(json.dumps({"seconds": time.process_time() - began}))
    return 0


def adapted(setting: str, base: str, rank: int) -> Any:
    """The deployed model with factors of that rank on every matrix; it predicts as it did."""
    own = SETTINGS[setting]
    module = zoo.get(own.architecture).build(own.arguments).float()
    load_into(module, load_state(base))
    served = [n for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    model = peft.get_peft_model(
        module, peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=served)
    )
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.requires_grad or parameter.dim() < 2)
    return model


def _keep(model: Any, folder: Path) -> None:
    save_state(folder / "adapter", _factors(model))
    for dtype in (torch.float32, torch.float16):
        name = str(dtype).removeprefix("torch.")
        save_state(folder / name, merged(model, dtype))


def _factors(model: Any) -> State:
    found: State = peft.get_peft_model_state_dict(model)
    return {n: t.detach().contiguous() for n, t in found.items() if _FACTOR in n}


def merged(model: Any, dtype: torch.dtype) -> State:
    """The weights that factors of that precision give."""
    own = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in own.named_parameters():
            if _FACTOR in name:
                parameter.copy_(parameter.to(dtype))
    return state_of(own.merge_and_unload())


if __name__ == "__main__":
    sys.exit(main())
