"""What a refinement does with layers that are no convolutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from server.packaging.encode import code_matrices, finish
from server.refine.effective import Plan, clone_for
from server.refine.initial import train_initial
from server.refine.job import Job
from server.refine.recipe import Recipe
from server.refine.reparam import REPARAMS, Dense
from server.refine.spec import JobSpec
from server.refine.start import start_from
from server.refine.weights import save_state, state_of
from server.registry.opening import ImageDataset, open_dataset
from shared import methods
from shared.weights import WeightsReader

ARGUMENTS = {"in_channels": 1, "classes": 3, "size": 16}


@pytest.fixture(scope="module")
def columns(
    tmp_path_factory: pytest.TempPathFactory,
    images: Callable[..., ImageDataset],
    save: Callable[[Path, ImageDataset], str],
) -> tuple[str, str]:
    """Training and test data in which every row of an image tells its class."""
    folder = tmp_path_factory.mktemp("columns")
    made = [images(count, seed=count) for count in (160, 100)]
    upright = [replace(one, images=one.images.transpose(0, 1, 3, 2).copy()) for one in made]
    return save(folder / "train.npz", upright[0]), save(folder / "test.npz", upright[1])


@pytest.mark.parametrize(
    ("architecture", "method", "options"),
    [
        ("row_lstm", "sparse", {"step": 0.7, "rate": 1e-5}),
        ("row_lstm", "lora", {"rank": 1, "bits": 6}),
        ("small_vit", "sparse", {"step": 0.7, "rate": 1e-5}),
    ],
)
def test_they_are_refined_packaged_and_delivered(
    columns: tuple[str, str],
    tmp_path: Path,
    architecture: str,
    method: str,
    options: dict[str, Any],
) -> None:
    train, test = columns
    first = Recipe(epochs=4, batch_size=10, held_out=0, threads=1)
    base = train_initial(architecture, ARGUMENTS, open_dataset(f"{train}#rows=0:40"), first)
    save_state(tmp_path / "base", base)
    recipe = Recipe(epochs=2, batch_size=10, held_out=0, threads=1, precision="bfloat16")
    spec = JobSpec(
        architecture=architecture, arguments=ARGUMENTS, base=tmp_path / "base", dataset=train,
        evaluation_dataset=test, method=method, options=options, recipe=recipe,
    )  # fmt: skip
    job = Job(spec)
    refined = job.train(lambda _line: None)
    with WeightsReader(spec.base) as reader:
        coded = code_matrices(reader, refined.parameters, job.plan.method, job.plan.options)
        settled = job.settle(refined, coded.decoded())
        report = finish(
            coded, settled.others, tmp_path / "p", "m", refined.schema, tmp_path / "w",
            steps=settled.steps,
        )  # fmt: skip
    trained, delivered = job.evaluate_state(refined.state), job.evaluate(tmp_path / "w")
    assert delivered.accuracy >= trained.accuracy - 0.1
    assert delivered.accuracy >= job.measure.base().accuracy > 0.9
    assert settled.steps.keys() == settled.others.keys()
    plans = {name: part.plan for name, part in report.tensors.items()}
    if architecture == "row_lstm":
        assert plans["lstm.weight_hh_l0"] == "factors"
        assert plans["lstm.bias_ih_l0"] == "direct"
        assert plans["lstm.bias_hh_l0"] == "unchanged"  # the other says the same
    else:
        assert plans["blocks.0.self_attn.in_proj_weight"] == "factors"
        assert plans["positions.weight"] == "factors"


class Mixed(nn.Module):
    """Layers of many kinds; a token that a position of its own is added to, and tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.position = nn.Parameter(torch.randn(1, 3, 8))
        self.deep = nn.LSTM(8, 4, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, kdim=8, vdim=8, batch_first=True)
        self.norm = nn.LayerNorm((3, 8))
        self.conv = nn.Conv1d(8, 8, 3, padding=1, groups=2)
        self.twisted = nn.Bilinear(8, 8, 8)
        self.out = nn.Linear(8, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x, _ = self.deep(self.embed(tokens) + self.position)
        x, _ = self.gru(x)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        x = self.twisted(x, self.conv(x.transpose(1, 2)).transpose(1, 2).contiguous())
        logits: Tensor = self.out(x.mean(1))
        return logits


@pytest.mark.parametrize(
    ("method", "options"), [("sparse", {}), ("lora", {"rank": 1}), ("ka", {"rank": 1})]
)
def test_every_tensor_of_many_kinds_of_layers_is_learnt_once(
    method: str, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    module = Mixed()
    before = state_of(module)
    chosen = methods.get(method)
    plan = Plan(chosen, methods.options(chosen, options), Recipe())
    clone = clone_for(start_from(before, module), plan, torch.device("cpu"))
    assert clone.matrices.keys() | clone.vectors.keys() == before.keys()
    assert isinstance(clone.matrices["position"], Dense) is (method != "sparse")
    assert isinstance(clone.matrices["attention.in_proj_weight"], REPARAMS[method])
    tokens = torch.tensor([[1, 2, 3], [6, 5, 4]])
    torch.testing.assert_close(clone(tokens), module(tokens))
    with torch.no_grad():
        for parameter in clone.parameters().values():
            parameter += 0.6
    out = clone(tokens)
    out.square().sum().backward()
    assert all(p.grad is not None for p in clone.parameters().values())
    with clone.applied() as measured:
        torch.testing.assert_close(measured(tokens), out.detach())
    assert all(not torch.equal(t, before[n]) for n, t in clone.state().items())
