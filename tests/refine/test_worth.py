from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from server.refine.batches import Batches, scaled
from server.refine.worth import worth


def test_worth_foretells_how_much_the_loss_rises() -> None:
    """On a linear model that was fitted to its data, weight by weight."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (600, 2, 3, 1), generator=draw, dtype=torch.uint8)
    pixels = scaled(images)
    labels = (pixels.flatten(1) @ torch.randn(6, 3, generator=draw) * 2).argmax(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    optimizer = torch.optim.Adam(net.parameters(), 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss = cross_entropy(net(pixels), labels) + 0.01 * net[1].weight.square().sum()
        loss.backward()
        optimizer.step()
    weight = net[1].weight.detach().clone()
    change = 0.2 * weight.double().numpy()
    found = worth(net, Batches(images, labels), {"1.weight": change})["1.weight"]

    with torch.no_grad():
        before = float(cross_entropy(net(pixels), labels))
        rises = np.zeros_like(change)
        for place in np.ndindex(*change.shape):
            probe = copy.deepcopy(net)
            probe[1].weight[place] -= change[place]
            rises[place] = float(cross_entropy(probe(pixels), labels)) - before
    assert found.shape == change.shape
    assert np.corrcoef(found.ravel(), rises.ravel())[0, 1] > 0.95
    assert abs(found.sum() / rises.sum() - 1) < 0.3


def test_what_does_not_matter_is_worth_nothing() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    net.unused = nn.Parameter(torch.ones(2, 2))
    net.forward = lambda x: net[1](net[0](x))  # type: ignore[method-assign]
    data = Batches(torch.zeros(8, 2, 2, 1, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64))
    assert not worth(net, data, {"unused": np.ones((2, 2))})["unused"].any()
