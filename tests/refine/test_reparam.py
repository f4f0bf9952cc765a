from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from server.refine.reparam import REPARAMS, Reparam, Site
from shared import methods
from shared.methods.base import LossyMethod, Tensor
from shared.methods.ka import constrain

CPU = torch.device("cpu")
OPTIONS: dict[str, dict[str, Any]] = {
    "ka": {"rank": 2},
    "ml": {"rank": 3},
    "ml_delta": {"rank": 3},
    "lra": {"rank": 3},
    "lru": {"rank": 3},
    "lora": {"rank": 3},
    "rm": {"proportion": 0.3},
    "sparse": {},
    "direct": {},
}
SHAPES = [(8, 12), (12, 8), (16, 9), (1, 6)]


def _reparam(
    id_: str, W: np.ndarray, felt: float | None = None, **given: Any
) -> tuple[Reparam, LossyMethod, Any]:
    method = methods.get(id_)
    assert isinstance(method, LossyMethod)
    options = methods.options(method, OPTIONS[id_] | given)
    frozen = method.prepare(W, "layer", options)
    return REPARAMS[id_](Site(W, "layer", options, frozen, 5, CPU, felt)), method, options


class _Source:
    """Symbols as a decoder reads them."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self._arrays = iter(arrays)

    def start(self) -> None:
        self._array, self._at = next(self._arrays), 0

    def read(self, count: int) -> np.ndarray:
        self._at += count
        return self._array[self._at - count : self._at]

    def finish(self) -> None:
        assert next(self._arrays, None) is None


def _matrix(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(3).normal(0, 0.05, shape)


def _shake(reparam: Reparam) -> None:
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in reparam.parameters().values():
            parameter += 0.3 * torch.randn(parameter.shape, generator=draw)


def test_every_method_can_be_trained() -> None:
    assert set(REPARAMS) == set(methods.METHODS)


@pytest.mark.parametrize("id_", ["ka", "ml_delta", "lru", "lora", "rm", "sparse", "direct"])
@pytest.mark.parametrize("shape", SHAPES)
def test_starts_at_the_base(id_: str, shape: tuple[int, int]) -> None:
    W = _matrix(shape)
    reparam, _, _ = _reparam(id_, W)
    np.testing.assert_array_equal(reparam.effective().detach(), W.astype(np.float32))


@pytest.mark.parametrize("id_", ["ml", "lra"])
def test_the_papers_forms_start_at_the_best_low_rank(id_: str) -> None:
    W = _matrix((8, 12))
    reparam, _, _ = _reparam(id_, W)
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    best = (U[:, :3] * s[:3]) @ Vt[:3]
    np.testing.assert_allclose(reparam.effective().detach(), best, atol=1e-7)


@pytest.mark.parametrize("id_", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_trained_weights_are_what_the_method_makes_of_the_values(
    id_: str, shape: tuple[int, int]
) -> None:
    W = _matrix(shape)
    reparam, method, options = _reparam(id_, W)
    _shake(reparam)
    new = W + method.effect(W, reparam.values(), "layer", options)
    np.testing.assert_allclose(reparam.effective().detach(), new, atol=1e-6)
    assert all(v.dtype == np.float64 for v in reparam.values().values())


@pytest.mark.parametrize("id_", OPTIONS)
@pytest.mark.parametrize("given", [{"bits": 2}, {"bits": 4}, {"bits": 8}, {"grain": 0.5}])
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_rounded_weights_are_those_that_are_sent(
    id_: str, given: dict[str, Any], shape: tuple[int, int]
) -> None:
    W = _matrix(shape)
    reparam, method, options = _reparam(id_, W, **given)
    _shake(reparam)
    before = reparam.effective().detach()
    reparam.rounding = True
    trained = reparam.effective()
    code = method.code(W, reparam.values(), "layer", options)
    tensor = Tensor("layer", *W.shape, options, code.steps, lambda: W, code.params)
    q = np.concatenate(list(method.chunks(tensor, _Source(code.symbols)))).reshape(W.shape)
    start = 0 if method.from_zero else W
    sent = start + q * code.steps[-1].value
    np.testing.assert_allclose(trained.detach(), sent, atol=2e-4 * W.std() + 1e-6)
    if given != {"bits": 8} and id_ != "sparse":
        assert not torch.allclose(trained, before, atol=1e-3)
    trained.square().sum().backward()
    assert any(bool(p.grad.any()) for p in reparam.parameters().values() if p.grad is not None)


def test_a_grain_is_a_share_of_the_spread_where_bits_allow_it() -> None:
    steps = {}
    for grain in (1e-6, 0.25, 0.5):
        reparam, _, _ = _reparam("direct", _matrix((16, 16)), grain=grain)
        _shake(reparam)
        reparam.rounding = True
        steps[grain] = reparam.values()["change.step"].item()
    (change,) = reparam.parameters().values()
    spread = change.detach().square().mean().sqrt().item() * reparam.site.unit
    assert steps[0.25] == pytest.approx(0.25 * spread, rel=0.01)
    assert steps[0.5] == pytest.approx(0.5 * spread, rel=0.01)
    top = change.detach().abs().max().item() * reparam.site.unit
    assert steps[1e-6] == pytest.approx(top / 127, rel=0.01)


@pytest.mark.parametrize("id_", OPTIONS)
def test_every_parameter_is_learnt(id_: str) -> None:
    reparam, _, _ = _reparam(id_, _matrix((8, 12)))
    _shake(reparam)  # at the start, some gradients are 0 by construction
    reparam.effective().square().sum().backward()
    for name, parameter in reparam.parameters().items():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name


@pytest.mark.parametrize("id_", OPTIONS)
def test_a_step_moves_the_weights_in_their_own_units(id_: str) -> None:
    """The same parameters mean the same relative change, whatever the scale of the layer."""
    changes = []
    for scale in (1.0, 128.0):
        W = _matrix((8, 12)) * scale
        reparam, _, _ = _reparam(id_, W)
        before = reparam.effective().detach().clone()
        _shake(reparam)
        changes.append((reparam.effective().detach() - before) / scale)
    torch.testing.assert_close(changes[0], changes[1], rtol=1e-3, atol=1e-6)


def test_ka_moves_no_null_value_and_equal_ones_together() -> None:
    draw = np.random.default_rng(0)
    U, _ = np.linalg.qr(draw.normal(size=(8, 6)))
    V, _ = np.linalg.qr(draw.normal(size=(12, 6)))
    s = np.array([3.0, 2.0, 2.0, 2.0, 1.0, 0.0])
    reparam, _, _ = _reparam("ka", (U * s) @ V.T)
    _shake(reparam)
    ds = reparam.values()["ds"]
    assert ds[1] == ds[2] == ds[3] != 0
    assert not ds[5:].any()
    assert ds[0] != ds[1]
    assert "g" in reparam.undecayed


def test_ka_trains_nothing_that_coding_takes_away() -> None:
    draw = np.random.default_rng(0)
    U, _ = np.linalg.qr(draw.normal(size=(8, 6)))
    V, _ = np.linalg.qr(draw.normal(size=(12, 6)))
    s = np.array([1.0, 0.5, 0.2, 4.5e-4, 3e-4, 1.5e-4])  # the last is null, two are chained to it
    W = (U * s) @ V.T
    reparam, _, _ = _reparam("ka", W)
    _shake(reparam)
    ds = reparam.values()["ds"]
    assert ds[:3].all()
    assert not ds[3:].any()
    np.testing.assert_allclose(constrain(ds, np.linalg.svd(W, compute_uv=False)), ds)


def test_constant_and_zero_matrices_can_learn() -> None:
    for W in (np.zeros((4, 9)), np.full((4, 9), 0.5)):
        reparam, method, options = _reparam("ka", W)
        _shake(reparam)
        new = W + method.effect(W, reparam.values(), "layer", options)
        np.testing.assert_allclose(reparam.effective().detach(), new, atol=1e-6)
        assert np.abs(new - W).max() > 0.01


def test_a_rare_symbol_costs_its_sign_and_its_surprise() -> None:
    reparam, _, _ = _reparam("sparse", _matrix((8, 12)))
    (c,) = reparam.parameters().values()
    with torch.no_grad():
        c.view(-1)[:6] = torch.tensor([1.0, -1.0, 2.0, 1.0, 1.0, -1.0])
    surprise = 1 + np.log2((96 - 6) / 6)
    cost = reparam.cost()
    assert cost is not None
    assert float(cost.pull.detach()) == pytest.approx(surprise / 8 * 7)
    p = 6 / 96
    entropy = -96 * (p * np.log2(p) + (1 - p) * np.log2(1 - p)) + 6
    entropy -= 6 * np.log2(6 / 7) + np.log2(1 / 7)  # of seven digits, six end one
    assert float(cost.bytes) == pytest.approx(entropy / 8)
    assert _reparam("rm", _matrix((8, 12)))[0].cost() is None


def test_a_step_of_sparse_is_as_large_as_the_loss_allows() -> None:
    W = _matrix((8, 12))
    sites = [_reparam("sparse", W, felt)[0] for felt in (0.01, 1.0)]
    coarse, fine = (site.values()["change.step"][0] for site in sites)
    assert coarse == pytest.approx(10 * fine, rel=0.02)
    assert 0.5 * 1.0 * fine**2 == pytest.approx(9e-5, rel=0.02)  # the price of 3 bytes
    unknown = _reparam("sparse", W)[0].values()["change.step"][0]
    assert unknown == _reparam("sparse", W, 0.0)[0].values()["change.step"][0]
    assert unknown == pytest.approx(0.7 * W.std(), rel=0.02)


def test_changes_of_less_than_half_a_step_are_none() -> None:
    reparam, _, _ = _reparam("sparse", W := _matrix((8, 12)))
    (c,) = reparam.parameters().values()
    with torch.no_grad():
        c.fill_(0.49)
    assert not reparam.values()["change"].any()
    np.testing.assert_array_equal(reparam.effective().detach(), W.astype(np.float32))


def test_a_low_rank_change_that_was_not_learnt_sends_nothing_of_its_random_factor() -> None:
    reparam, method, options = _reparam("lora", W := _matrix((8, 12)))
    assert reparam.values()["R"].any()
    assert not any(s.any() for s in method.code(W, reparam.values(), "layer", options).symbols)
