from __future__ import annotations

import numpy as np
import pytest
import torch

from server.refine.price import Cost, Price
from server.refine.reparam import Site
from server.refine.reparam.sparse import Sparse
from shared import coding, methods

CPU = torch.device("cpu")


def _cost(size: float) -> Cost:
    return Cost(torch.tensor(size), torch.tensor(size, requires_grad=True))


def test_a_fixed_price_is_the_rate() -> None:
    price = Price(1e-3, None, CPU)
    for _ in range(3):
        assert float(price.of([_cost(10.0), _cost(30.0)]).detach()) == pytest.approx(0.04)


def test_the_price_follows_the_aim() -> None:
    price = Price(1e-3, 100, CPU)
    dear = [float(price.of([_cost(300.0)]).detach()) for _ in range(20)]
    assert dear == sorted(dear)
    assert dear[-1] > 1.1 * dear[0]
    cheap = [float(price.of([_cost(20.0)]).detach()) for _ in range(2000)]
    assert cheap == sorted(cheap, reverse=True)
    assert cheap[-1] > 0  # it never gets out of reach


def test_in_a_short_training_the_price_follows_faster() -> None:
    after = {}
    for steps in (50, 5000, 50000):
        price = Price(1e-3, 100, CPU)
        price.pace(steps)
        after[steps] = [float(price.of([_cost(300.0)]).detach()) for _ in range(5)][-1]
    assert after[50] > 5 * after[5000]
    assert after[5000] == after[50000]


@pytest.mark.parametrize("aim", [120, 360])
def test_symbols_take_about_the_bytes_that_were_asked_for(aim: int) -> None:
    """Least squares under noise: the more bytes, the nearer to the goal."""
    rng = np.random.default_rng(0)
    W = rng.normal(size=(40, 100))
    method = methods.get("sparse")
    options = methods.options(method, {"step": 1.0, "rate": 1e-3, "bytes": aim})
    sparse = Sparse(Site(W, "w", options, method.prepare(W, "w", options), 0, CPU))
    goal = torch.tensor(W + 2 * rng.normal(size=W.shape) * (rng.random(W.shape) < 0.2))
    (c,) = sparse.parameters().values()
    optimizer = torch.optim.Adam([c], lr=0.05)
    price = Price(options.rate, options.bytes, CPU)
    for step in range(1500):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 1500)
        noise = torch.from_numpy(rng.normal(size=W.shape))
        loss = (sparse.effective() - goal + noise).square().mean() + price.of([sparse.cost()])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    symbols = np.rint(sparse.values()["change"] / sparse.values()["change.step"])
    coded = coding.coder("range/1").encode([symbols.astype(np.int64).reshape(-1)])
    assert 0.8 * aim < len(coded) < 1.2 * aim
