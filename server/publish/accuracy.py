"""What a lossy package costs in accuracy, measured on the very weights that devices will decode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from server import zoo
from server.errors import BadUpdate
from server.refine.evaluate import Scores, predict, scores
from server.refine.labelled import open_labelled
from server.refine.weights import load_into, load_state


@dataclass(frozen=True)
class Gate:
    """What is asked of a result. `max_drop` in percentage points, `min_accuracy` in percent.

    `uri` and `fingerprint` are those of the registered dataset `name`. Without thresholds the
    figures are only kept.
    """

    name: str
    uri: str
    fingerprint: str
    max_drop: float | None = None
    min_accuracy: float | None = None

    def check(self, target: float, decoded: float) -> None:
        """Raise BadUpdate `below_accuracy`; both are shares of images, from 0 to 1."""
        found = f"{decoded:.2%} of {self.name} with the decoded weights, {target:.2%} with the"
        drop = (target - decoded) * 100
        if self.max_drop is not None and drop > self.max_drop:
            told = f"{found} target: {drop:.2f} points less, allowed are {self.max_drop:g}"
            raise BadUpdate("below_accuracy", told)
        if self.min_accuracy is not None and decoded * 100 < self.min_accuracy:
            told = f"{found} target; asked for are {self.min_accuracy:g}%"
            raise BadUpdate("below_accuracy", told)


@dataclass(frozen=True)
class Subject:
    """What is measured: an architecture of the zoo (or an own one), with its arguments."""

    architecture: str
    arguments: Mapping[str, Any]


def measure(gate: Gate, subject: Subject, target: Path, decoded: Path) -> dict[str, Any]:
    """The figures of the decoded weights beside the target's, for the metrics of the package.

    Raises BadUpdate `below_accuracy`, BadDataset where the data have changed or do not fit, and
    BadWeights.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = zoo.get(subject.architecture).build(subject.arguments).float().to(device)
    classes, data = open_labelled(gate.uri, gate.fingerprint, module, device)
    found = []
    for weights in (target, decoded):
        load_into(module, load_state(weights))
        found.append(predict(module, data))
    labels = data.labels.cpu()
    before = scores(found[0], labels, classes)
    after = scores(found[1], labels, classes, found[0])
    gate.check(before.accuracy, after.accuracy)
    return _metrics(gate, before, after)


def _metrics(gate: Gate, before: Scores, after: Scores) -> dict[str, Any]:
    return {
        "dataset": gate.name,
        "images": after.images,
        "accuracy_target": before.accuracy,
        "accuracy_after": after.accuracy,
        "per_class_target": before.per_class,
        "per_class_after": after.per_class,
        "negative_flips": after.negative_flips,
    }
