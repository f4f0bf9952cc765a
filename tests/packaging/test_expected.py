"""Golden samples of a package: of the decoded weights, telling, firm, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from server import zoo
from server.errors import BadUpdate
from server.packaging.encode import build_package
from server.packaging.expected import Expected
from server.refine.weights import save_state, state_of
from shared.golden import MAX_BYTES, samples_digest
from shared.package import PackageReader

ARGUMENTS = {"classes": 6, "in_channels": 1}


def network() -> nn.Module:
    return zoo.get("vgg_tiny").build(ARGUMENTS)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A network that tells inputs apart: its layers are scaled up."""
    torch.manual_seed(3)
    module = network()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= 2
    save_state(tmp_path / "new.safetensors", state_of(module))
    return tmp_path / "new.safetensors"


def labels_of(path: Path, inputs: Any) -> list[int]:
    from server.refine.weights import load_into, load_state

    module = network().eval()
    load_into(module, load_state(path))
    with torch.inference_mode():
        return module(torch.from_numpy(inputs)).argmax(1).tolist()


def test_labels_are_those_of_the_decoded_weights(weights: Path, tmp_path: Path) -> None:
    torch.manual_seed(4)
    base = tmp_path / "base.safetensors"
    save_state(base, state_of(network()))
    places = tmp_path / "p.weft", "m", tmp_path / "decoded"
    expected = Expected(network, 24, (1, 28, 28))
    report = build_package(base, weights, "direct", {"bits": 3}, *places, expected)
    with PackageReader(places[0]) as package:
        golden = package.header.golden
    assert golden is not None
    assert report.golden == golden.fields()
    assert golden.expected == labels_of(tmp_path / "decoded", golden.inputs())
    assert len(set(golden.expected)) > 1
    assert golden.agree > 20
    plain = build_package(base, weights, "direct", {"bits": 3}, tmp_path / "q.weft", "m")
    assert report.size - plain.size <= MAX_BYTES + 7  # and padding
    assert report.result_digest == plain.result_digest


def test_samples_of_a_data_set_are_named_by_their_digest(weights: Path) -> None:
    rows = np.random.default_rng(0).uniform(-1, 1, (30, 1, 28, 28)).astype(np.float32)
    golden = Expected(network, 20, samples=rows)(weights)
    assert golden.samples == samples_digest(rows[:20])
    assert golden.expected == labels_of(weights, rows[:20])


def test_labels_that_hang_on_the_last_bits_may_differ(weights: Path) -> None:
    class Torn(nn.Module):
        """Half of the inputs lie on the edge between two classes."""

        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def state_dict(self, **more: Any) -> Any:
            return self.net.state_dict(**more)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            edge = torch.arange(len(x)) % 4 == 0
            scores = torch.zeros(len(x), 6)
            scores[:, 1], scores[:, 2] = 1, torch.where(edge, 0.9999, 0.5)
            return scores

    assert Expected(Torn, 20, (1, 28, 28))(weights).agree == 15


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: x, "not with scores of classes"),
        (lambda x: torch.zeros(len(x)), "not with scores of classes"),
        (lambda x: torch.zeros(len(x), 1), "not with scores of classes"),
        (lambda x: torch.full((len(x), 3), torch.nan), "not with scores of classes"),
        (lambda x: {"scores": x}, "cannot take"),
        (lambda x: torch.zeros(len(x), 3), "0 of 20 labels are firm"),
        (lambda x: torch.zeros(len(x), 70_000).index_fill(1, torch.tensor(5), 1), "classes"),
    ],
)
def test_a_network_that_gives_no_labels_is_refused(weights: Path, answer: Any, said: str) -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def state_dict(self, **more: Any) -> Any:
            return self.net.state_dict(**more)

        def forward(self, x: torch.Tensor) -> Any:
            return answer(x)

    with pytest.raises(BadUpdate) as raised:
        Expected(Other, 20, (1, 28, 28))(weights)
    assert raised.value.code == "update.no_golden"
    assert said in raised.value.message


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Expected(network, 20, (3, 28, 28)), "cannot take inputs of [3, 28, 28]"),
        (Expected(network, 64, samples=np.zeros((9, 1, 28, 28), np.float32)), "there are 9"),
        (Expected(network, 64, samples=np.eye(28, dtype="f4")[None, None].repeat(64, 0)), "bytes"),
    ],
)
def test_what_cannot_be_had_is_refused(weights: Path, asked: Expected, said: str) -> None:
    with pytest.raises(BadUpdate, match=r"golden|samples|inputs") as raised:
        asked(weights)
    assert said in raised.value.message
