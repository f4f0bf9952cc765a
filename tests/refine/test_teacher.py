from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from server.refine.batches import Batches
from server.refine.job import Job
from server.refine.recipe import Recipe
from server.refine.teacher import lesson, taught
from server.registry.opening import open_dataset

CPU = torch.device("cpu")


class Brightness(nn.Module):
    """Answers by the brightness of the left and of the right half."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.mean((1, 2)).chunk(2, 1)
        return torch.stack([left.mean(1), right.mean(1), torch.zeros(len(x))], 1)


def _data(world: Any) -> Batches:
    return Batches.of(open_dataset(world.train), CPU)


def test_targets_lie_between_labels_and_answers(world: Any) -> None:
    data = _data(world)
    half = taught(data, Brightness(), Recipe(distillation=0.5)).targets
    whole = taught(data, Brightness(), Recipe(distillation=1.0)).targets
    assert half is not None
    assert whole is not None
    images = next(iter(data.plain(len(data))))[0]
    assert torch.allclose(whole, Brightness()(images).softmax(1), atol=1e-6)
    labels = nn.functional.one_hot(data.labels, 3)
    assert torch.allclose(half, (whole + labels) / 2, atol=1e-6)


def test_where_trainings_mirror_so_does_the_teacher(world: Any) -> None:
    targets = taught(_data(world), Brightness(), Recipe(distillation=1.0, flip=True)).targets
    assert targets is not None
    assert torch.allclose(targets[:, 0], targets[:, 1])
    assert torch.allclose(targets.sum(1), torch.ones(len(targets)))


def test_an_epoch_gives_each_image_its_own_target(world: Any) -> None:
    data = _data(world)
    numbers = torch.arange(len(data), dtype=torch.float32)[:, None]
    data = Batches(data.images, data.labels, numbers)
    for images, targets in data.epoch(Recipe(batch_size=64), 0):
        kept = data.images[targets[:, 0].long()]
        assert torch.equal(((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1), kept)


def test_a_teacher_may_be_trained_longer() -> None:
    longer = Recipe(epochs=2, distillation=1, teacher_epochs=5)
    assert lesson(longer) == lesson(Recipe(epochs=5, distillation=0.5))
    assert lesson(Recipe(epochs=3, distillation=1)).epochs == 3


class Stop(Exception):
    """Stands for whatever ends a training in the middle."""


def test_a_training_goes_on_after_its_teacher(world: Any, tmp_path: Path) -> None:
    spec = world.spec("sparse", recipe=Recipe(epochs=2, batch_size=64, threads=1, distillation=1))
    stages: list[str] = []

    def stop(line: dict[str, Any]) -> None:
        if line["stage"] == "refine":
            raise Stop

    def keep(line: dict[str, Any]) -> None:
        stages.append(line["stage"])

    with pytest.raises(Stop):
        Job(spec, tmp_path).train(stop)
    again = Job(spec, tmp_path).train(keep)
    assert set(stages) == {"refine"}  # the teacher was there
    straight = Job(spec).train(lambda _line: None)
    assert all(torch.equal(again.state[n], t) for n, t in straight.state.items())
    plain = world.spec("sparse", recipe=Recipe(epochs=2, batch_size=64, threads=1))
    untaught = Job(plain).train(lambda _line: None)
    assert any(not torch.equal(untaught.state[n], t) for n, t in straight.state.items())
