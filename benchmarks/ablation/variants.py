"""What is compared: `sparse` at a few sizes, and at one size all the ways to do it otherwise."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.ablation import choosing, patches

Patch = Callable[[], AbstractContextManager[Any]]

#: Bytes of symbols that are aimed for; the others give the curve to compare with.
AIM, CURVE = 1200, (600, 2400)


@dataclass(frozen=True)
class Variant:
    """A way to do it. `patch` is entered for the run.

    `whole`: all of VGG-small is trained, not its last layers.
    """

    name: str
    title: str
    options: dict[str, Any] = field(default_factory=lambda: {"bytes": AIM})
    recipe: dict[str, Any] = field(default_factory=dict)
    patch: Patch | None = None
    whole: bool = False


_ALL = [
    Variant("sparse", f"`sparse`, aim {AIM}"),
    *(Variant(f"sparse-{aim}", f"`sparse`, aim {aim}", {"bytes": aim}) for aim in CURVE),
    Variant("distilled", "distillation", recipe={"distillation": 1.0}),
    Variant("whole", f"all of VGG-small: `sparse`, aim {AIM}", whole=True),
    Variant(
        "whole-distilled",
        "all of VGG-small: distillation",
        recipe={"distillation": 1.0},
        whole=True,
    ),
    Variant("uniform-steps", "steps of 0.7 spreads", options={"bytes": AIM, "step": 0.7}),
    Variant("dear-steps-1.5", "a step at 1.5 bytes", patch=partial(patches.dear_steps, 1.5)),
    Variant("dear-steps-6", "a step at 6 bytes", patch=partial(patches.dear_steps, 6.0)),
    Variant("plain-l1", "the same price for every symbol", patch=patches.plain_l1),
    Variant("late-rounding", "rounded in the second half only", patch=patches.late_rounding),
    Variant("vectors-8bit", "biases and BatchNorm at 8 bits", patch=patches.vectors_8bit),
    Variant("averaged", "symbols of the average", patch=partial(choosing.averaged, 0.85)),
    *(
        Variant(f"rdo-{kind}-{scale:g}", title, patch=partial(choosing.chosen, kind, scale))
        for kind, scale, title in (
            ("weight", 0.3, "chosen after training, by F of each weight"),
            ("tensor", 0.3, "chosen after training, by F of each tensor"),
            ("taylor", 1.0, "chosen after training, by gradient and F"),
        )
    ),
    Variant("refit", "an epoch of BatchNorm and biases after training", patch=choosing.refit),
    Variant("rate-0.02", "learning rate 0.02", recipe={"learning_rate": 0.02}),
    Variant("rate-0.1", "learning rate 0.1", recipe={"learning_rate": 0.1}),
    Variant("batch-256", "batches of 256", recipe={"batch_size": 256}),
    Variant("smooth", "label smoothing 0.05", recipe={"label_smoothing": 0.05}),
    Variant("beta1-0.97", "Adam with beta1 0.97", patch=partial(patches.adam, betas=(0.97, 0.999))),
    Variant("eps-0.003", "Adam with eps 0.003", patch=partial(patches.adam, eps=3e-3)),
    Variant("aim-down", "an aim that tightens", patch=partial(patches.aim, 4.0)),
    Variant("aim-up", "an aim that opens", patch=partial(patches.aim, 0.1)),
]

VARIANTS = {variant.name: variant for variant in _ALL}
