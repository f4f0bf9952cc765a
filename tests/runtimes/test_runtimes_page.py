"""The programs of docs/edge-agent.md, done as it says."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from edge_agent.config import load_config
from edge_agent.runtimes.onnx import LiveSession, load_mapping
from server.refine.weights import save_state
from server.zoo import get

PAGE = Path(__file__).parents[2] / "docs" / "edge-agent.md"
SOCKET, STORE = "/run/digits/weft.sock", "/var/lib/weft-agent/models/digits"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(heading: str, language: str) -> list[str]:
    """The code of a section."""
    page = PAGE.read_text("utf-8")
    section = re.split(r"^##+ ", page.partition(f"\n### {heading}\n")[2], flags=re.MULTILINE)[0]
    return [code for name, code in FENCE.findall(section) if name == language]


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the programs of the page find: a model, its weights on the device, images."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = get("vgg_tiny").build({"classes": 10})
    (tmp_path / "store" / "slots").mkdir(parents=True)
    save_state("digits.safetensors", model.state_dict())
    save_state(tmp_path / "store" / "slots" / "a.safetensors", model.state_dict())
    (tmp_path / "store" / "current").symlink_to("slots/a.safetensors")
    shown: list[int] = []
    return {"model": model, "show": shown.append, "shown": shown}


def run(program: str, given: dict[str, Any], images: list[Any]) -> None:
    """With the places of a test instead of a device's."""
    here = program.replace(SOCKET, "socket").replace(STORE, "store")
    exec(here.replace('users=["weft-agent"]', "users=[]"), given | {"camera": lambda: images})
    assert len(given["shown"]) == len(images)


def configurations(heading: str) -> list[str]:
    """The configuration of a section; where it gives a choice, each of them."""
    page = PAGE.read_text("utf-8")
    section = re.split(r"^##+ ", page.partition(f"\n### {heading}\n")[2], flags=re.MULTILINE)[0]
    (text,) = re.findall(r"^    \[models\.digits\.runtime\]\n(?:    .+\n)+", section, re.MULTILINE)
    first, *others = text.split("    # or\n")
    return [first, *("    [models.digits.runtime]\n" + other for other in others)]


@pytest.mark.parametrize(
    ("heading", "kind", "ways"),
    [("Programs that open the file", "file", 3), ("Programs with PyTorch", "program", 1)],
)
def test_the_configuration_of_a_runtime(heading: str, kind: str, ways: int, tmp_path: Path) -> None:
    texts = configurations(heading)
    assert len(texts) == ways
    for text in texts:
        path = tmp_path / "agent.toml"
        path.write_text('server = "https://weft.example"\n' + text)
        assert load_config(path, {}).models["digits"].runtime.kind == kind


def test_the_program_with_pytorch(given: dict[str, Any]) -> None:
    (program,) = blocks("Programs with PyTorch", "python")
    run(program, given, list(torch.randn(3, 1, 3, 32, 32)))


def test_the_program_with_onnx_runtime(given: dict[str, Any]) -> None:
    """Export, check, and run; on the provider of this machine."""
    export, program, provider = blocks("Programs with ONNX Runtime", "python")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch's exporter, about itself
        exec(export, given)
    run(program, given, list(torch.randn(3, 1, 3, 32, 32).numpy()))
    exec(provider.replace("CUDAExecutionProvider", "CPUExecutionProvider"), given)
    live = LiveSession("digits.onnx", "store", open_session=given["on_the_gpu"])
    with live.lease(timeout=5) as network:
        assert isinstance(network.session, onnxruntime.InferenceSession)


def test_the_mapping_of_onnx_runtime(tmp_path: Path) -> None:
    (text,) = blocks("Programs with ONNX Runtime", "toml")
    (tmp_path / "digits.toml").write_text(text)
    mapping = load_mapping(tmp_path / "digits.toml")
    assert mapping.initializers["onnx::MatMul_12"].transpose == (1, 0)
    assert mapping.constants == ("mean", "std")
