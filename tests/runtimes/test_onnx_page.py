"""What docs/edge-agent.md says of ONNX Runtime, done as it says."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from edge_agent.runtimes.onnx import LiveSession, load_mapping
from server.refine.weights import save_state
from server.zoo import get

PAGE = Path(__file__).parents[2] / "docs" / "edge-agent.md"
SOCKET, STORE = "/run/digits/weft.sock", "/var/lib/weft-agent/models/digits"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def blocks() -> dict[str, list[str]]:
    """The section's code, by language."""
    page = PAGE.read_text("utf-8")
    section = re.split(r"^##+ ", page.partition("Programs with ONNX Runtime\n")[2], flags=re.M)[0]
    found: dict[str, list[str]] = {}
    for language, code in FENCE.findall(section):
        found.setdefault(language, []).append(code)
    return found


def test_the_program_of_the_page(
    blocks: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Export, check, and run beside the weights of a device, on the provider of this machine."""
    export, program, provider = blocks["python"]
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = get("vgg_tiny").build({"classes": 10})
    store = tmp_path / "models" / "digits"
    (store / "slots").mkdir(parents=True)
    save_state("digits.safetensors", model.state_dict())
    save_state(store / "slots" / "a.safetensors", model.state_dict())
    (store / "current").symlink_to("slots/a.safetensors")
    shown: list[int] = []

    def camera() -> Iterator[Any]:
        yield from torch.randn(3, 1, 3, 32, 32).numpy()

    given = {"model": model, "camera": camera, "show": shown.append}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch's exporter, about itself
        exec(export, given)
    here = program.replace(SOCKET, str(tmp_path / "s")).replace(STORE, str(store))
    exec(here.replace('users=["weft-agent"]', "users=[]"), given)
    assert len(shown) == 3
    exec(provider.replace("CUDAExecutionProvider", "CPUExecutionProvider"), given)
    opened: Any = given["on_the_gpu"]
    live = LiveSession("digits.onnx", store, open_session=opened)
    with live.lease(timeout=5) as network:
        assert isinstance(network.session, onnxruntime.InferenceSession)


def test_the_mapping_of_the_page(blocks: dict[str, list[str]], tmp_path: Path) -> None:
    (tmp_path / "digits.toml").write_text(blocks["toml"][0])
    mapping = load_mapping(tmp_path / "digits.toml")
    assert mapping.initializers["onnx::MatMul_12"].transpose == (1, 0)
    assert mapping.constants == ("mean", "std")
