from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from server.refine.recurrent import merged
from server.refine.weights import load_into, state_of


def _moved(module: nn.Module) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {n: t + 0.3 * torch.randn(t.shape, generator=draw) for n, t in state_of(module).items()}


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(5, 4, num_layers=2, bidirectional=True),
        nn.RNN(5, 4),
        nn.GRU(5, 4),
    ],
    ids=["deep", "plain", "gru"],
)
def test_one_bias_says_what_two_have_learnt(layer: nn.RNNBase) -> None:
    base = state_of(layer)
    new = _moved(layer)
    load_into(layer, new)
    x = torch.randn(6, 2, 5, generator=torch.Generator().manual_seed(1))
    expected, _ = layer(x)
    changed = merged(layer, new, base)
    assert changed.keys() == {n for n in base if "bias" in n}
    load_into(layer, changed)
    found, _ = layer(x)
    torch.testing.assert_close(found, expected)
    gates = 2 * 4 if isinstance(layer, nn.GRU) else None
    for name in (n for n in base if "bias_hh" in n):
        assert torch.equal(changed[name][:gates], base[name][:gates])
        assert not torch.equal(new[name][:gates], base[name][:gates])


def test_biases_that_are_shared_or_new_stay_as_they_are() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.LSTM(3, 2), nn.LSTM(3, 2)
            self.second.bias_hh_l0 = self.first.bias_hh_l0

    module = Two()
    base, new = state_of(module), _moved(module)
    assert not merged(module, new, base)
    lonely: Any = nn.LSTM(3, 2)
    base = state_of(lonely)
    del base["bias_hh_l0"]
    assert not merged(lonely, _moved(lonely), base)
    assert not merged(nn.LSTM(3, 2, bias=False), {}, {})
