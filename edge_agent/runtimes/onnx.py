"""A running ONNX Runtime session takes new weights; for the host program, never for the agent.

    live = LiveSession("model.onnx", "/var/lib/weft-agent/models/digits")
    with live.lease() as network:               # all weights of one version
        logits = network.run({"x": image})[0]

The model is read once and kept without its weights: a graph of a few hundred kilobytes. For each
version a session is built of that graph and the tensors of the weights file, handed over in memory:
no file is rewritten, and the runtime optimises the graph (folds BatchNorm, packs matrices) with the
new values. Building runs beside the inferences; what they wait for is one assignment. The session
has its own copy of the weights: the file may change under it. While a session is built, memory
holds the old session, the new one and the tensors.

What of the weights goes where is said in `onnx_mapping`. The export must keep each tensor as it is
in the state dict; PyTorch's default folds BatchNorm into the convolutions and keeps *their* names:

    torch.onnx.export(module.eval(), (example,), "model.onnx", dynamo=True, optimize=False)

`differing` proves that a mapping is right, at the desk. Needs onnx and onnxruntime (or
onnxruntime-gpu): the extra `onnx`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edge_agent.runtimes.holder import Holder
from edge_agent.runtimes.onnx_graph import Graph, OpenSession, differing, load
from edge_agent.runtimes.onnx_mapping import OnnxMapping, load_mapping
from shared.tensors import Array
from shared.weights import WeightsReader

__all__ = ["LiveSession", "Network", "OnnxMapping", "differing", "load_mapping", "open_on_cpu"]


def open_on_cpu(graph: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """The default; a program with a GPU gives its own function, which names its `providers`."""
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class Network:
    """What a program is lent: one session, whose weights are all of one version.

    `session` must not be kept beyond the lease; nor what is bound to it, such as an `io_binding`.
    """

    session: onnxruntime.InferenceSession

    def run(self, inputs: Mapping[str, Any], outputs: list[str] | None = None) -> list[Any]:
        """Compute the outputs, all by default, as numpy arrays."""
        computed: list[Any] = self.session.run(outputs, dict(inputs))
        return computed


Predict = Callable[[Network, Array], Sequence[int]]


class LiveSession(Holder[Network]):
    """A session that is replaced when the agent brings new weights; see the module and `Holder`.

    `model` is the ONNX file; by default every initializer is fed by its own name, on the CPU.
    `predict` gives the labels of golden samples, by the program's own way from input to answer.
    Raises BadConfig, RuntimeRefused and BadWeights.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        store: str | os.PathLike[str],
        mapping: OnnxMapping | None = None,
        *,
        open_session: OpenSession = open_on_cpu,
        check: Callable[[Network], bool | str] | None = None,
        golden: bool = False,
        samples: Iterable[str | os.PathLike[str]] = (),
        predict: Predict | None = None,
        hold_seconds: float = 120.0,
    ) -> None:
        graph = Graph(Path(model), mapping or OnnxMapping())
        network = Network()
        super().__init__(
            network,
            _Sessions(network, graph, open_session, predict or top_labels),
            store,
            check=check,
            golden=golden,
            samples=samples,
            hold_seconds=hold_seconds,
        )


def top_labels(network: Network, inputs: Array) -> list[int]:
    """The largest of the first output's numbers, in batches as the model's first input has them."""
    wanted = network.session.get_inputs()[0]
    batch = wanted.shape[0] if isinstance(wanted.shape[0], int) else len(inputs)
    found: list[int] = []
    for start in range(0, len(inputs), batch):
        rows = inputs[start : start + batch]
        full = np.concatenate([rows, np.repeat(rows[-1:], batch - len(rows), axis=0)])
        answers = network.run({wanted.name: full})[0].reshape(batch, -1)
        found += answers[: len(rows)].argmax(axis=1).tolist()
    return found


class _Sessions:
    """`holder.Net`: a change of the weights is a session that is put in the place of another."""

    holds_copy = True

    def __init__(
        self, network: Network, graph: Graph, open_session: OpenSession, predict: Predict
    ) -> None:
        self._network, self._graph = network, graph
        self._open, self._predict = open_session, predict
        self._digest = ""

    def change(self, path: Path, *, keep: bool) -> _Change:
        """The old session lives until the change is closed, so `keep` makes no difference."""
        del keep
        with WeightsReader(path) as reader:
            self._graph.check(reader.schema)
            digest, tensors = load(reader, self._graph.sources)
        return _Change(self._put, digest, self._graph.open(tensors, self._open))

    def digest(self) -> str:
        """Of the tensors that the session in use was built of."""
        return self._digest

    def labels(self, inputs: Array) -> list[int]:
        """See `holder.Net`."""
        return [int(label) for label in self._predict(self._network, inputs)]

    def _put(self, digest: str, session: Any) -> tuple[str, Any]:
        before = self._digest, getattr(self._network, "session", None)
        self._digest, self._network.session = digest, session
        return before


class _Change:
    """`holder.Change`: a session and its digest, which change places with those in use."""

    def __init__(
        self, put: Callable[[str, Any], tuple[str, Any]], digest: str, session: Any
    ) -> None:
        self._put = put
        self._other: tuple[str, Any] = digest, session

    def apply(self) -> None:
        """One assignment; the other session is let go of by `close`."""
        self._other = self._put(*self._other)

    undo = apply

    def close(self) -> None:
        """Let go of the session that is not in use."""
        self._other = "", None
