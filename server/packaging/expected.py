"""Golden samples for a package: what the decoded weights answer to inputs that devices can make.

The inputs are drawn from a seed, in the shape that the network takes, or are the first rows of
given samples. Of a few seeds the one is taken whose inputs get the most different labels: labels
that are all the same would tell little. A label that hangs on less than a thousandth of what the
scores of its input span may come out otherwise on a device; so many may differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from server.errors import BadUpdate
from server.refine.weights import load_into, load_state
from shared.golden import Golden, drawn, golden_of, samples_digest
from shared.tensors import Array

SEEDS = 8
FIRM = 1e-3
_BATCH = 64


@dataclass(frozen=True)
class Expected:
    """What is asked for: `count` labels. Either `shape`, of one input, or `samples` is given.

    `build` gives a fresh network of the architecture that the weights fit; `samples` are float32
    with a sample a row.
    """

    build: Callable[[], nn.Module]
    count: int
    shape: tuple[int, ...] = ()
    samples: Array | None = None

    def __call__(self, weights: Path) -> Golden:
        """The golden samples of a weights file.

        Raises BadUpdate `no_golden` where the network does not answer with scores of classes,
        where too few of its labels are firm, or where they take too much room.
        """
        module = self.build().eval()
        load_into(module, load_state(weights))
        found = [self._judged(module, inputs, source) for inputs, source in self._choices()]
        labels, firm, classes, source = max(found, key=lambda one: (len(set(one[0])), one[1]))
        if 2 * firm < len(labels):
            raise BadUpdate("no_golden", f"only {firm} of {len(labels)} labels are firm")
        try:
            return golden_of(labels, classes, firm, source)
        except ValueError as error:
            raise BadUpdate("no_golden", f"{self.count} golden samples: {error}") from error

    def _choices(self) -> list[tuple[Array, dict[str, Any]]]:
        """Inputs, and where devices get them from."""
        if self.samples is None:
            seeds = range(SEEDS)
            shape = self.shape
            return [(drawn(s, self.count, shape), {"seed": s, "shape": shape}) for s in seeds]
        rows = self.samples[: self.count]
        if len(rows) < self.count:
            raise BadUpdate("no_golden", f"there are {len(rows)} samples, not {self.count}")
        return [(rows, {"samples": samples_digest(rows)})]

    def _judged(
        self, module: nn.Module, inputs: Array, source: dict[str, Any]
    ) -> tuple[list[int], int, int, dict[str, Any]]:
        """Labels, how many of them are firm, the number of classes, and the source."""
        scores = _scores(module, inputs)
        ranked = np.sort(scores, axis=1)
        spans = ranked[:, -1] - ranked[:, 0]
        firm = ranked[:, -1] - ranked[:, -2] > FIRM * spans
        return scores.argmax(axis=1).tolist(), int(firm.sum()), scores.shape[1], source


def _scores(module: nn.Module, inputs: Array) -> Array:
    """What the network answers, float64 (N, classes)."""
    try:
        with torch.inference_mode():
            parts = [
                module(torch.from_numpy(np.ascontiguousarray(inputs[s : s + _BATCH])))
                for s in range(0, len(inputs), _BATCH)
            ]
            scores = torch.cat(parts).double().numpy()
    except (RuntimeError, TypeError, ValueError) as error:
        told = f"the network cannot take inputs of {list(inputs.shape[1:])}: {error}"
        raise BadUpdate("no_golden", told) from error
    if scores.ndim != 2 or scores.shape[1] < 2 or not np.isfinite(scores).all():
        told = f"the network answers with {list(scores.shape)}, not with scores of classes"
        raise BadUpdate("no_golden", told)
    return scores
