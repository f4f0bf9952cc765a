from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from server import zoo
from server.refine.effective import Clone, Plan, clone_for, dense_clone
from server.refine.recipe import Recipe
from server.refine.reparam import Dense
from server.refine.start import start_from
from server.refine.weights import state_of
from shared import methods
from shared.errors import BadWeights

CPU = torch.device("cpu")


class Tied(nn.Module):
    """An embedding whose weight is also the output layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.out = nn.Linear(8, 11, bias=False)
        self.out.weight = self.embed.weight
        self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.embed(tokens))


def _plan(id_: str = "ka", matrices: bool = True, **options: Any) -> Plan:
    method = methods.get(id_)
    given = options or {"rank": 1}
    return Plan(method, methods.options(method, given), Recipe(matrices=matrices))


def _shaken(clone: Clone) -> Clone:
    with torch.no_grad():
        for parameter in clone.parameters().values():
            parameter += 0.2
    return clone


def test_a_tied_weight_is_changed_once_and_everywhere() -> None:
    module = Tied()
    clone = _shaken(clone_for(start_from(state_of(module), module), _plan(), CPU))
    assert list(clone.matrices) == ["embed.weight"]
    tokens = torch.tensor([[1, 2]])
    W = clone.weights()["embed.weight"]
    torch.testing.assert_close(clone(tokens), W[tokens] @ W.T)
    state = clone.state()
    assert "out.weight" not in state
    assert torch.equal(state["embed.weight"], module.out.weight)
    assert state["mask"].tolist() == [0.0, float("-inf")]


def test_gradients_reach_the_parameters_and_nothing_else() -> None:
    module = Tied()
    clone = clone_for(start_from(state_of(module), module), _plan(), CPU)
    clone(torch.tensor([[1, 2]])).square().sum().backward()
    assert all(p.grad is not None for p in clone.parameters().values())
    assert all(p.grad is None for p in module.parameters())


def test_a_clone_starts_as_the_base_and_applied_gives_what_was_trained() -> None:
    module = zoo.get("vgg_small").build({"classes": 3}).eval()
    x = torch.rand(2, 3, 32, 32)
    before = module(x).detach()
    clone = clone_for(start_from(state_of(module), module), _plan(), CPU)
    torch.testing.assert_close(clone(x), before)
    _shaken(clone)
    with clone.applied() as measured:
        torch.testing.assert_close(measured(x), clone(x))


def test_what_low_precision_would_swallow_is_seen_in_training() -> None:
    module = nn.Linear(8, 8).bfloat16()
    clone = clone_for(start_from(state_of(module), module), _plan("direct", bits=8), CPU)
    for parameter in clone.parameters().values():
        nn.init.constant_(parameter, 1e-4)
    weight = clone.weights()["weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, weight.bfloat16().float())
    weight.sum().backward()
    (change,) = clone.matrices["weight"].parameters().values()
    assert change.grad is not None
    assert bool((change.grad != 0).all())


def test_small_matrices_are_trained_densely() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 40), nn.Linear(40, 30))
    clone = clone_for(start_from(state_of(module), module), _plan(rank=3), CPU)
    dense = {name for name, matrix in clone.matrices.items() if isinstance(matrix, Dense)}
    assert dense == {"0.weight", "1.weight"}


def test_the_control_trains_vectors_only() -> None:
    module = zoo.get("vgg_small").build({})
    clone = clone_for(start_from(state_of(module), module), _plan(matrices=False), CPU)
    assert not clone.matrices
    assert sum(p.numel() for p in clone.parameters().values()) == 922


def test_matrices_alone_leave_biases_and_norms_as_they_are() -> None:
    module = zoo.get("vgg_small").build({})
    before = state_of(module)
    method = methods.get("lora")
    plan = Plan(method, methods.options(method, {"rank": 1}), Recipe(vectors=False))
    clone = _shaken(clone_for(start_from(before, module), plan, CPU))
    assert not clone.vectors
    moved = {n for n, t in clone.state().items() if not torch.equal(t, before[n])}
    assert moved == set(clone.matrices)


def test_decay_spares_vectors_and_singular_values() -> None:
    module = zoo.get("vgg_tiny").build({})
    start = start_from(state_of(module), module)
    trained = clone_for(start, _plan(), CPU).trained()
    spared = {t.name.replace("/", ".").rpartition(".")[2] for t in trained if not t.decayed}
    assert spared == {"g", "bias"}
    dense = dense_clone(start, 0.1, CPU).trained()
    assert {t.name.rpartition(".")[2] for t in dense if not t.decayed} == {"bias"}


def test_each_part_has_its_own_learning_rate() -> None:
    architecture = zoo.get("vgg_tiny")
    base = state_of(architecture.build({"classes": 5}))
    ka = methods.get("ka")
    recipe = Recipe(learning_rate=0.5, vector_rate=0.25)
    plan = Plan(ka, methods.options(ka, {"rank": 1}), recipe)
    clone = clone_for(start_from(base, architecture.build({})), plan, CPU)
    rates = {t.name: t.rate for t in clone.trained()}
    assert rates["features.0.weight/u"] == 0.5
    assert rates["features.0.bias"] == 0.25
    assert rates["classifier.weight/change"] == Dense.rate  # not the method's


def test_frozen_parameters_stay() -> None:
    module = zoo.get("vgg_tiny").build({})
    module.get_parameter("features.0.weight").requires_grad_(False)
    clone = _shaken(clone_for(start_from(state_of(module), module), _plan(), CPU))
    assert "features.0.weight" not in clone.matrices
    assert torch.equal(clone.state()["features.0.weight"], module.state_dict()["features.0.weight"])


def test_another_head_keeps_the_old_classes() -> None:
    architecture = zoo.get("vgg_small")
    base = state_of(architecture.build({"classes": 5}))
    start = start_from(base, architecture.build({"classes": 10}))
    assert start.reshaped == {"classifier.weight", "classifier.bias"}
    weight = start.module.get_parameter("classifier.weight").detach()
    assert torch.equal(weight[:5], base["classifier.weight"])
    assert 0 < float(weight[5:].abs().max()) < 0.1 * float(weight[:5].abs().max()) * 1.1
    clone = clone_for(start, _plan(), CPU)
    assert isinstance(clone.matrices["classifier.weight"], Dense)
    assert clone(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_bases_that_cannot_be_used() -> None:
    architecture = zoo.get("vgg_tiny")
    base = state_of(architecture.build({}))
    for state, code in [
        ({"other": torch.zeros(3)}, "weights.schema_mismatch"),
        (base | {"classifier.bias": torch.full((10,), float("nan"))}, "weights.not_finite"),
        (base | {"classifier.bias": torch.zeros(10, dtype=torch.int64)}, "weights.schema_mismatch"),
    ]:
        with pytest.raises(BadWeights) as caught:
            start_from(state, architecture.build({}))
        assert caught.value.code == code


def test_half_precision_is_of_the_arithmetic_and_not_of_the_weights() -> None:
    module = nn.Linear(64, 64)
    clone = clone_for(start_from(state_of(module), module), _plan("direct", bits=8), CPU)
    x = torch.rand(3, 64)
    rounded = clone(x, bfloat16=True)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, clone(x))
    torch.testing.assert_close(rounded, clone(x), atol=0.02, rtol=0.02)
    rounded.sum().backward()
    assert clone.weights()["weight"].dtype == torch.float32
    for parameter in clone.parameters().values():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32


def test_a_change_is_coarse_in_half_precision_and_what_it_is_added_to_is_not() -> None:
    module = nn.Linear(64, 64)
    clone = _shaken(clone_for(start_from(state_of(module), module), _plan(), CPU))
    exact, coarse = (clone.weights(half)["weight"].detach() for half in (False, True))
    assert coarse.dtype == torch.float32
    change = float((exact - module.weight).abs().max())
    assert 0 < float((coarse - exact).abs().max()) < 0.01 * change
    clone(torch.rand(3, 64), bfloat16=True)
    assert torch.equal(clone.weights()["weight"], exact)  # what is measured and sent
