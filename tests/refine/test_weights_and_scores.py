from __future__ import annotations

from pathlib import Path

import pytest
import torch

from server.refine.evaluate import scores
from server.refine.weights import load_into, load_state, save_state, state_of
from server.zoo.architecture import dtype_name
from shared.tensors import STORAGE
from shared.weights import WeightsReader

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.bool,
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_survives_a_file(tmp_path: Path, dtype: torch.dtype) -> None:
    given = torch.tensor([[0.0, 1.0, 3.0], [1.0, 0.5, 2.0]]).to(dtype)
    scalar = torch.tensor(1.0).to(dtype)
    empty = torch.zeros(0, 2).to(dtype)
    save_state(tmp_path / "w", {"a": given.T, "b": scalar, "c": empty})
    found = load_state(tmp_path / "w")
    assert {t.dtype for t in found.values()} == {dtype}
    assert dtype_name(dtype) in STORAGE
    assert torch.equal(found["a"].double(), given.T.double())
    assert torch.equal(found["b"].double(), scalar.double())
    assert found["c"].shape == (0, 2)


def test_the_same_tensors_give_the_same_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = state_of(torch.nn.Linear(3, 2))
    for name in ("x", "y"):
        save_state(tmp_path / name, state if name == "x" else dict(reversed(state.items())))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    with WeightsReader(tmp_path / "x") as reader:
        assert set(reader.schema) == {"weight", "bias"}


def test_loading_serves_tied_weights() -> None:
    one, two = torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False)
    two.weight = one.weight
    module = torch.nn.Sequential(one, two)
    assert list(state_of(module)) == ["0.weight"]
    load_into(module, {"0.weight": torch.eye(2)})
    assert torch.equal(module(torch.ones(1, 2)), torch.ones(1, 2))


def test_scores_per_class_and_negative_flips() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    before = torch.tensor([0, 0, 1, 0, 0, 0])
    after = torch.tensor([0, 1, 1, 1, 2, 0])
    found = scores(after, labels, ("a", "b", "c", "d"), before)
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.per_class == {"a": 0.5, "b": 1.0, "c": 0.5}
    assert found.negative_flips == pytest.approx(1 / 6)
    assert scores(before, labels, ("a", "b", "c")).negative_flips is None
    assert found.plain()["images"] == 6
