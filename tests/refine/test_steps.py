from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from server import zoo
from server.refine import steps
from server.refine.batches import Batches
from server.refine.steps import steps_of
from server.refine.weights import load_into, load_state
from server.registry.opening import open_dataset
from shared.tensors import Array

CPU = torch.device("cpu")


class Case:
    """A base, new biases and BatchNorm parameters, and a module that holds them."""

    def __init__(self, world: Any) -> None:
        self.base = load_state(world.base)
        self.data = Batches.of(open_dataset(world.train), CPU)
        self.module = zoo.get("vgg_small").build(world.spec().arguments).float()
        rng = np.random.default_rng(0)
        names = [n for n, p in self.module.named_parameters() if p.dim() == 1]
        self.others: dict[str, Array] = {
            n: self.base[n].double().numpy() + rng.normal(0, 0.05, self.base[n].shape)
            for n in names
        }
        self.place(self.others)

    def place(self, others: dict[str, Array]) -> None:
        load_into(self.module, self.base)
        load_into(self.module, {n: torch.from_numpy(v) for n, v in others.items()})

    def loss(self, others: dict[str, Array]) -> float:
        self.place(others)
        return steps._loss(self.module, self.data)

    def rounded(self, found: dict[str, float]) -> dict[str, Array]:
        base = {n: self.base[n].double().numpy() for n in self.others}
        return {
            n: base[n] + np.rint((v - base[n]) / found[n]) * found[n] if n in found else v
            for n, v in self.others.items()
        }


def test_rounding_to_the_steps_loses_no_more_than_was_foretold(world: Any) -> None:
    case = Case(world)
    found = steps_of(case.module, case.base, case.others, case.data)
    assert found.keys() == case.others.keys()
    numbers = sum(v.size for v in case.others.values())
    lost = case.loss(case.rounded(found)) - case.loss(case.others)
    assert lost <= 0.5 * steps.LOSS * numbers + 1e-6
    symbols = [(case.rounded(found)[n] - v) / found[n] for n, v in case.others.items()]
    assert max(np.abs(s).max() for s in symbols) <= 0.5 + 1e-9


def test_a_model_that_feels_nothing_gets_finer_steps_than_it_says(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(world)
    felt = steps.sensitivities(case.module, case.data)
    numb = {n: value * 1e-4 for n, value in felt.items()}
    monkeypatch.setattr(steps, "sensitivities", lambda _module, _data: numb)
    found = steps_of(case.module, case.base, case.others, case.data)
    lost = case.loss(case.rounded(found)) - case.loss(case.others)
    assert lost <= 0.5 * steps.LOSS * sum(v.size for v in case.others.values()) + 1e-6


def test_what_has_no_base_has_no_step(world: Any) -> None:
    case = Case(world)
    without = {n: t for n, t in case.base.items() if n != "classifier.bias"}
    found = steps_of(case.module, without, case.others, case.data)
    assert found.keys() == case.others.keys() - {"classifier.bias"}
