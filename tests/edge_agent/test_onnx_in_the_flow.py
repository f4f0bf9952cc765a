"""The agent as it is, the socket, and a program that answers with ONNX Runtime meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent.runtimes.onnx import LiveSession, Network
from edge_agent.runtimes.serving import serve
from shared.weights import WeightsReader
from tests.edge_agent.plane import MODEL, SHAPES

X = np.linspace(-1, 1, 40, dtype=np.float32).reshape(1, 40)


def make_model(path: Path) -> None:
    """Two layers, of the tensors that the weights of these tests have; exported from zeros."""
    nodes = [
        helper.make_node("Gemm", ["x", "body.weight", "body.bias"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "head.weight", "head.bias"], ["y"], transB=1),
    ]
    zeros = [numpy_helper.from_array(np.zeros(s, np.float32), name) for name, s in SHAPES.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 40])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])
    graph = helper.make_graph(nodes, "digits", [x], [y], zeros)
    opset = helper.make_opsetid("", 18)
    onnx.save_model(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)


def answer_of(weights: Path) -> Any:
    """What the network says with these weights."""
    with WeightsReader(weights) as reader:
        w = {name: reader.read(name) for name in reader.schema}
    hidden = np.maximum(X @ w["body.weight"].T + w["body.bias"], 0)
    return hidden @ w["head.weight"].T + w["head.bias"]


class Host:
    """The program; `accepts` is its check."""

    def __init__(self, model: Path, store: Path, socket: Path) -> None:
        self.accepts: bool | str = True
        self.socket = socket
        self.live = LiveSession(model, store, check=lambda network: self.check(network))

    def check(self, network: Network) -> bool | str:
        return bool(np.isfinite(network.run({"x": X})[0]).all()) and self.accepts

    def answers_with(self, weights: Path) -> bool:
        with self.live.lease(timeout=20) as network:
            return bool(np.allclose(network.run({"x": X})[0], answer_of(weights), atol=1e-5))


@pytest.fixture(params=["ab", "inplace"])
def host(request: Any, bench: Any, shelf: Any, tmp_path: Path) -> Iterator[Host]:
    """It runs with version 1, which the device was delivered with."""
    socket = tmp_path / "weft.sock"
    bench.settings["models"][MODEL] = {
        "initial": str(shelf.weights[1]),
        "storage": request.param,
        "runtime": {"kind": "program", "socket": str(socket), "timeout_seconds": 20},
    }
    assert bench.round() == []
    make_model(tmp_path / "digits.onnx")
    host = Host(tmp_path / "digits.onnx", bench.folder, socket)
    with serve({MODEL: host.live}, socket):
        yield host


def test_the_session_follows_the_agent(host: Host, bench: Any, plane: Any, shelf: Any) -> None:
    assert host.answers_with(shelf.weights[1])
    for version, package in ((2, "xor-12"), (3, "xor-23")):
        plane.offer(shelf, shelf.wanted(version, package, assignment=version))
        assert bench.round() == []
        assert host.answers_with(shelf.weights[version])
        assert not host.answers_with(shelf.weights[version - 1])
        report = plane.reports[-1]
        assert (report.result, report.health) == ("committed", "passed")
        assert report.weights_digest == host.live.digest == shelf.digests[version]


def test_a_version_that_the_program_rejects_is_gone_from_disk_and_session(
    host: Host, bench: Any, plane: Any, shelf: Any
) -> None:
    host.accepts = "digits look like letters"
    plane.offer(shelf, shelf.wanted(2, "xor-12"))
    bench.round()
    report = plane.reports[-1]
    assert report.result == "failed_rolled_back"
    assert "digits look like letters" in report.error.message
    assert report.weights_digest == bench.in_use() == host.live.digest == shelf.digests[1]
    assert host.answers_with(shelf.weights[1])
