from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from server.refine.batches import Batches, scaled
from server.refine.sensitivity import sensitivities, step_for


class Net(nn.Module):
    """Two layers, of which the first is felt more, and a part that is never used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(48, 5)
        self.norm = nn.BatchNorm1d(5)
        self.second = nn.Linear(5, 3)
        self.idle = nn.Linear(2, 2)
        with torch.no_grad():
            self.first.weight.mul_(0.1)
            self.second.weight.mul_(4.0)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.norm(self.first(x.flatten(1))).tanh())
        return out


@pytest.fixture
def data() -> Batches:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (2048, 4, 4, 3), dtype=np.uint8))
    return Batches(images, torch.zeros(2048, dtype=torch.int64))


def _fisher(module: nn.Module, data: Batches) -> dict[str, float]:
    """The exact mean over samples and elements, with every label weighted by its probability."""
    module.eval()
    sums = {name: 0.0 for name, _ in module.named_parameters()}
    count = 256
    for row in range(count):
        logits = module(scaled(data.images[row : row + 1]))
        for label, chance in enumerate(logits.detach().softmax(1)[0]):
            module.zero_grad()
            cross_entropy(logits, torch.tensor([label])).backward(retain_graph=True)
            for name, p in module.named_parameters():
                if p.grad is not None:
                    sums[name] += float(chance * p.grad.square().mean())
    module.zero_grad()
    return {name: total / count for name, total in sums.items()}


def test_it_is_the_mean_squared_gradient_of_single_samples(data: Batches) -> None:
    module = Net()
    exact, found = _fisher(module, data), sensitivities(module, data)
    assert found.keys() == exact.keys()
    assert found["idle.weight"] == 0
    for name in ("first.weight", "norm.bias", "second.weight", "second.bias"):
        assert found[name] == pytest.approx(exact[name], rel=0.5), name
    assert found["first.weight"] > 10 * found["second.weight"]


def test_the_module_comes_back_as_it_was_and_the_estimate_is_the_same_again(data: Batches) -> None:
    module = Net()
    module.first.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert sensitivities(module, data) == sensitivities(module, data)
    assert not module.first.weight.requires_grad
    assert module.second.weight.requires_grad
    assert all(p.grad is None for p in module.parameters())
    after: dict[str, Any] = module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_step_is_as_large_as_its_loss_allows() -> None:
    assert step_for(1e-5, 0.2) == pytest.approx(0.01)
    assert step_for(1e-5, 0.0) is None
    assert step_for(1e-5, float("nan")) is None
