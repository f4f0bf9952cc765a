from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from server import zoo
from server.refine import batchnorm
from server.refine.batches import Batches
from server.refine.weights import load_into, state_of
from server.registry.opening import ImageDataset

CPU = torch.device("cpu")


class Leaky(nn.Module):
    """Two convolutions with BatchNorm; the first one's output is used beside its BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        made = self.conv1(x)
        x = made + self.bn1(made).relu()
        return self.bn2(self.conv2(x)).mean((2, 3))


class Twice(nn.Module):
    """One convolution whose output feeds two BatchNorms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.left, self.right = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        made = self.conv(x)
        return (self.left(made) * self.right(made)).mean((2, 3))


class Casting(nn.Module):
    """A model that works in float32 only, as some do for the sake of mixed precision."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x.float())).relu().mean((2, 3))


@pytest.fixture
def data(images: Callable[..., ImageDataset]) -> Batches:
    return Batches.of(images(80), CPU)


def _used(module: nn.Module, seed: int) -> nn.Module:
    """As after some training: every vector and statistic is something else."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=draw) + 0.5)
            elif tensor.dim() == 1:
                tensor.add_(torch.randn(tensor.shape, generator=draw) * 0.3)
    return module.eval()


def _vgg(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return _used(zoo.get("vgg_small").build({"in_channels": 1, "classes": 3}), seed)


def _sample(data: Batches) -> Tensor:
    return next(data.plain(4))[0]


def _logits(module: nn.Module, data: Batches) -> Tensor:
    with torch.no_grad():
        return torch.cat([module(x) for x, _ in data.plain(40)])


@pytest.mark.parametrize("name", ["vgg_small", "vgg_tiny", "resnet18", "mobilenet_v2"])
def test_finds_every_batchnorm_and_the_bias_before_it(name: str) -> None:
    module = _used(zoo.get(name).build({}), 0)
    norms = batchnorm.find_norms(module, torch.rand(2, 3, 32, 32))
    assert {n.name for n in norms} == {
        name for name, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)
    }
    assert all(n.foldable for n in norms)
    biases = [n.bias for n in norms if n.bias]
    assert len(biases) == (5 if name == "vgg_small" else 0)


def test_a_bias_that_something_else_feels_is_left_alone(data: Batches) -> None:
    norms = batchnorm.find_norms(_used(Leaky(), 0), _sample(data))
    assert [(n.name, n.foldable, n.bias) for n in norms] == [
        ("bn1", True, None),
        ("bn2", False, "conv2.bias"),
    ]
    norms = batchnorm.find_norms(_used(Twice(), 0), _sample(data))
    assert [n.bias for n in norms] == [None, None]


def test_a_model_without_double_precision_absorbs_no_bias(data: Batches) -> None:
    module = _used(Casting(), 3)
    before = state_of(module)
    [norm] = batchnorm.find_norms(module, _sample(data))
    assert (norm.name, norm.foldable, norm.bias) == ("bn", True, None)
    assert all(torch.equal(t, before[n]) for n, t in state_of(module).items())


def test_reestimated_statistics_are_those_of_the_data(data: Batches) -> None:
    module = _vgg(0)
    counter = module.get_buffer("features.1.num_batches_tracked").clone()
    momentum = module.get_submodule("features.1").momentum
    batchnorm.reestimate(module, data, batch=40)
    made = torch.cat([module.get_submodule("features.0")(x).detach() for x, _ in data.plain(40)])
    mean = module.get_buffer("features.1.running_mean")
    torch.testing.assert_close(mean, made.mean((0, 2, 3)))
    assert torch.equal(module.get_buffer("features.1.num_batches_tracked"), counter)
    assert module.get_submodule("features.1").momentum == momentum
    assert not module.training


@pytest.mark.parametrize("make", [_vgg, lambda seed: _used(Leaky(), seed)])
def test_folding_gives_the_same_predictions(
    make: Callable[[int], nn.Module], data: Batches
) -> None:
    base, new = make(1), make(2)
    batchnorm.reestimate(new, data, batch=40)
    before = _logits(new, data)
    norms = batchnorm.find_norms(new, _sample(data))
    folded, statistics = batchnorm.fold(new.state_dict(), base.state_dict(), norms)
    load_into(new, folded)
    torch.testing.assert_close(_logits(new, data), before, rtol=1e-4, atol=1e-4)
    for norm in norms:
        stays = torch.equal(new.get_buffer(norm.mean), base.get_buffer(norm.mean))
        assert stays == norm.foldable == (norm.mean in statistics)
        if norm.bias and norm.foldable:
            assert torch.equal(new.get_parameter(norm.bias), base.get_parameter(norm.bias))


def test_on_vgg_small_618_numbers_travel_instead_of_1530(data: Batches) -> None:
    base, new = (_used(zoo.get("vgg_small").build({"in_channels": 1}), seed) for seed in (1, 2))
    norms = batchnorm.find_norms(new, _sample(data))
    folded, _ = batchnorm.fold(new.state_dict(), base.state_dict(), norms)
    held, trained = state_of(base), {n: t for n, t in state_of(new).items() if t.dim() == 1}
    assert sum(t.numel() for t in trained.values()) == 1530
    moved = trained | folded
    travels = {n: t for n, t in moved.items() if not torch.equal(t.float(), held[n])}
    assert sum(t.numel() for t in travels.values()) == 618


def test_unfolding_restores_what_can_be_trained_on(data: Batches) -> None:
    base, new = _vgg(1), _vgg(2)
    batchnorm.reestimate(new, data, batch=40)
    norms = batchnorm.find_norms(new, _sample(data))
    folded, statistics = batchnorm.fold(new.state_dict(), base.state_dict(), norms)
    clone = copy.deepcopy(new)
    load_into(clone, folded)
    wrong = _logits(clone.train(), data)
    load_into(clone, folded)
    load_into(clone.eval(), batchnorm.unfold(clone.state_dict(), statistics, norms))
    torch.testing.assert_close(_logits(clone, data), _logits(new, data), rtol=1e-4, atol=1e-4)
    right, given = _logits(new.train(), data), _logits(clone.train(), data)
    torch.testing.assert_close(given, right, rtol=1e-4, atol=1e-4)
    assert float((wrong - right).abs().max()) > 0.1  # why it is needed


def test_without_stored_statistics_unfolding_observes_them(data: Batches) -> None:
    base, new = _vgg(1), _vgg(2)
    batchnorm.reestimate(new, data, batch=40)
    norms = batchnorm.find_norms(new, _sample(data))
    folded, _ = batchnorm.fold(new.state_dict(), base.state_dict(), norms)
    held = copy.deepcopy(new)
    load_into(held, folded)
    observed = batchnorm.observe(held, data, batch=40)
    load_into(held, batchnorm.unfold(held.state_dict(), observed, norms))
    torch.testing.assert_close(_logits(held, data), _logits(new, data), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        _logits(held.train(), data), _logits(new.train(), data), rtol=0.05, atol=0.05
    )


def test_a_batchnorm_that_the_base_lacks_keeps_its_statistics(data: Batches) -> None:
    new = _vgg(2)
    norms = batchnorm.find_norms(new, _sample(data))
    base = state_of(_vgg(1))
    del base["features.1.running_var"]
    base["features.5.running_var"] = torch.ones(5)
    folded, statistics = batchnorm.fold(new.state_dict(), base, norms)
    kept = {n.rpartition(".")[0] for n in statistics}
    assert kept == {"features.9", "features.13", "features.17"}
    assert not any(n.startswith(("features.1.", "features.5.")) for n in statistics)
    assert "features.1.weight" not in folded
