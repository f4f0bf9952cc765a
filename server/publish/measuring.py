"""What a lossy package costs in accuracy, measured on the very weights that devices will decode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from server import zoo
from server.packaging.expected import Expected
from server.publish.accuracy import Gate, Samples, Subject
from server.refine.batches import Batches
from server.refine.evaluate import Scores, predict, scores
from server.refine.labelled import open_labelled
from server.refine.weights import load_into, load_state
from shared.tensors import Array


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


def expected(golden: Samples, subject: Subject) -> Expected:
    """What makes the golden samples of a package; raises BadDataset as `measure` does."""

    def build() -> nn.Module:
        return zoo.get(subject.architecture).build(subject.arguments).float()

    if golden.shape:
        return Expected(build, golden.count, golden.shape)
    _, data = open_labelled(golden.uri, golden.fingerprint, build(), torch.device("cpu"))
    return Expected(build, golden.count, samples=first_rows(data, golden.count))


def first_rows(data: Batches, count: int) -> Array:
    """The first images of the data as a network takes them, float32 (N, C, H, W)."""
    rows = Batches(data.images[:count], data.labels[:count])
    images, _ = next(rows.plain(count))
    return images.numpy()


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
