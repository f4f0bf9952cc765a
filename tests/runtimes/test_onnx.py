"""ONNX Runtime sessions that take new weights, against PyTorch's answers."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edge_agent.config import ModelConfig
from edge_agent.errors import HealthError, RuntimeRefused
from edge_agent.runtimes import Runtime, Weights, open_runtime
from edge_agent.runtimes.onnx import LiveSession, Network, OnnxMapping, differing, open_on_cpu
from edge_agent.runtimes.onnx_mapping import Source
from edge_agent.runtimes.serving import serve
from server.refine.weights import save_state
from server.zoo import get
from shared.errors import BadConfig, BadWeights
from shared.golden import Golden, golden_of
from shared.weights import WeightsReader, write_weights
from tests.runtimes.contract import Place, RuntimeTests
from tests.runtimes.networks import Classifier, seeded

SIZE = 32
#: What two runtimes may differ by when they add in another order.
NEAR = {"rtol": 1e-4, "atol": 1e-4}


def export(module: nn.Module, path: Path, shape: tuple[int, ...], **changes: Any) -> Path:
    """As docs/edge-agent.md says; `changes` are other arguments of the export."""
    settings: dict[str, Any] = {"dynamo": True, "optimize": False, "verbose": False} | changes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, about itself
        torch.onnx.export(module.eval(), (torch.zeros(shape),), path, **settings)
    return path


def drawn(name: str, seed: int) -> nn.Module:
    """A network of the zoo as if it had been trained: BatchNorm has seen images."""
    torch.manual_seed(seed)
    module = get(name).build({"classes": 7}).train()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
        module(torch.randn(4, 3, SIZE, SIZE))
    return module.eval()


def saved(module: nn.Module, path: Path) -> Weights:
    save_state(path, module.state_dict())
    with WeightsReader(path) as reader:
        return Weights(path, reader.digest().hex())


def update(live: LiveSession, new: Weights) -> None:
    live.prepare(new)
    live.swap(new)
    assert live.verify(new, None).digest == new.digest
    live.confirm(new)


def answer(live: LiveSession, image: Tensor) -> Any:
    with live.lease(timeout=20) as network:
        return network.run({network.session.get_inputs()[0].name: image.numpy()})[0]


def same(live: LiveSession, module: nn.Module, image: Tensor) -> bool:
    with torch.no_grad():
        return bool(np.allclose(answer(live, image), module(image).numpy(), **NEAR))


@pytest.mark.parametrize("name", ["vgg_tiny", "vgg_small", "tiny_resnet"])
def test_answers_are_those_of_torch_after_updates_and_going_back(name: str, tmp_path: Path) -> None:
    modules = [drawn(name, seed) for seed in range(3)]
    path = export(drawn(name, 9), tmp_path / "model.onnx", (1, 3, SIZE, SIZE))
    versions = [saved(module, tmp_path / f"{n}.st") for n, module in enumerate(modules)]
    image = torch.randn(1, 3, SIZE, SIZE)
    live = LiveSession(path, versions[0].path)
    assert same(live, modules[0], image)
    for n in (1, 2):
        update(live, versions[n])
        assert same(live, modules[n], image)
        assert not same(live, modules[n - 1], image)
    live.swap(versions[1])
    assert live.revert(versions[2]).digest == versions[2].digest
    assert same(live, modules[2], image)


def test_resnet18(tmp_path: Path) -> None:
    old, new = drawn("resnet18", 1), drawn("resnet18", 2)
    path = export(old, tmp_path / "model.onnx", (1, 3, SIZE, SIZE))
    first, second = saved(old, tmp_path / "old.st"), saved(new, tmp_path / "new.st")
    assert differing(path, first.path) == []
    image = torch.randn(1, 3, SIZE, SIZE)
    live = LiveSession(path, first.path)
    assert same(live, old, image)
    update(live, second)
    assert same(live, new, image)


# The export.


def test_a_folded_export_is_refused_by_the_names_of_batch_norm(tmp_path: Path) -> None:
    """PyTorch's default: the convolutions keep their names, and are no longer the weights."""
    module = drawn("vgg_small", 1)
    weights = saved(module, tmp_path / "w.st")
    folded = export(module, tmp_path / "model.onnx", (1, 3, SIZE, SIZE), optimize=True)
    with pytest.raises(RuntimeRefused, match=r"'features\.1\.running_var' feeds no initializer"):
        LiveSession(folded, weights.path)


def test_even_who_ignores_them_sees_that_values_were_changed(tmp_path: Path) -> None:
    module = drawn("vgg_small", 1)
    weights = saved(module, tmp_path / "w.st")
    folded = export(module, tmp_path / "model.onnx", (1, 3, SIZE, SIZE), optimize=True)
    norms = [f"features.{n}.*" for n in (1, 5, 9, 13, 17)]
    found = differing(folded, weights.path, OnnxMapping(ignored=tuple(norms)))
    assert "features.0.weight" in found
    assert "classifier.weight" not in found


def test_an_export_that_merged_equal_tensors_is_refused(tmp_path: Path) -> None:
    """As the older exporter does, with what BatchNorm has before training."""
    module = get("vgg_small").build({"classes": 7}).eval()
    weights = saved(module, tmp_path / "w.st")
    path = export(
        module, tmp_path / "m.onnx", (1, 3, SIZE, SIZE), dynamo=False, do_constant_folding=False
    )
    with pytest.raises(RuntimeRefused, match="feeds no initializer"):
        LiveSession(path, weights.path)


def test_the_older_exporter_keeps_tensors_that_differ(tmp_path: Path) -> None:
    module = drawn("vgg_small", 1)
    weights = saved(module, tmp_path / "w.st")
    path = export(
        module, tmp_path / "m.onnx", (1, 3, SIZE, SIZE), dynamo=False, do_constant_folding=False
    )
    assert differing(path, weights.path) == []
    assert same(LiveSession(path, weights.path), module, torch.randn(1, 3, SIZE, SIZE))


def test_a_model_with_its_values_in_another_file(tmp_path: Path) -> None:
    module = drawn("vgg_tiny", 1)
    path = export(module, tmp_path / "model.onnx", (1, 3, SIZE, SIZE))
    moved = tmp_path / "apart.onnx"
    onnx.save_model(onnx.load(path), moved, save_as_external_data=True, size_threshold=0)
    weights = saved(module, tmp_path / "w.st")
    assert differing(moved, weights.path) == []
    assert same(LiveSession(moved, weights.path), module, torch.randn(1, 3, SIZE, SIZE))


# Small graphs, by hand.


def graph_of(
    nodes: list[Any], initializers: list[Any], inputs: list[int], path: Path, external: bool = False
) -> Path:
    """Of x, float32 of the shape `inputs`, to y."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs)
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "small", [given], [result], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save_model(model, path, save_as_external_data=external, size_threshold=0)
    return path


def stored(path: Path, **tensors: tuple[str, Any]) -> Weights:
    write_weights(path, tensors)
    with WeightsReader(path) as reader:
        return Weights(path, reader.digest().hex())


def run(live: LiveSession, x: Any) -> Any:
    with live.lease(timeout=20) as network:
        return network.run({"x": np.asarray(x, np.float32)})[0]


def test_a_transposed_and_renamed_tensor(tmp_path: Path) -> None:
    weight = np.arange(9, dtype=np.float32).reshape(3, 3)
    nodes = [helper.make_node("MatMul", ["x", "onnx::MatMul_1"], ["y"])]
    values = [numpy_helper.from_array(np.ascontiguousarray(weight.T), "onnx::MatMul_1")]
    path = graph_of(nodes, values, [1, 3], tmp_path / "m.onnx")
    first = stored(tmp_path / "1.st", **{"fc.weight": ("F32", weight)})
    second = stored(tmp_path / "2.st", **{"fc.weight": ("F32", weight + 10)})
    mapping = OnnxMapping(
        initializers={"onnx::MatMul_1": Source(tensor="fc.weight", transpose=(1, 0))}
    )
    live = LiveSession(path, first.path, mapping)
    x = np.array([[1, 2, 3]], np.float32)
    assert np.array_equal(run(live, x), x @ weight.T)
    update(live, second)
    assert np.array_equal(run(live, x), x @ (weight + 10).T)
    assert live.digest == second.digest
    assert differing(path, first.path, mapping) == []
    # A square matrix looks right either way: only its values tell.
    wrong = OnnxMapping.model_validate({"initializers": {"onnx::MatMul_1": "fc.weight"}})
    assert differing(path, first.path, wrong) == ["onnx::MatMul_1"]


def test_tied_weights_reach_every_place(tmp_path: Path) -> None:
    ones = np.ones((2, 2), np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "embedding"], ["h"]),
        helper.make_node("MatMul", ["h", "head"], ["y"]),
    ]
    values = [numpy_helper.from_array(ones, name) for name in ("embedding", "head")]
    path = graph_of(nodes, values, [1, 2], tmp_path / "m.onnx")
    weights = stored(tmp_path / "w.st", embedding=("F32", ones * 3))
    mapping = OnnxMapping.model_validate({"initializers": {"head": "embedding"}})
    assert run(LiveSession(path, weights.path, mapping), [[1, 0]]).tolist() == [[18, 18]]


@pytest.mark.parametrize("external", [False, True])
def test_constants_keep_their_values(tmp_path: Path, external: bool) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "scale"], ["g"]),
        helper.make_node("Reshape", ["g", "shape"], ["y"]),
    ]
    values = [
        numpy_helper.from_array(np.zeros(2, np.float32), "w"),
        numpy_helper.from_array(np.array([5, 6], np.float32), "scale"),
        numpy_helper.from_array(np.array([2, 1], np.int64), "shape"),
    ]
    path = graph_of(nodes, values, [1, 2], tmp_path / "m.onnx", external)
    weights = stored(tmp_path / "w.st", w=("F32", np.array([10, 100])))
    with pytest.raises(RuntimeRefused, match="'scale'"):
        LiveSession(path, weights.path)
    live = LiveSession(path, weights.path, OnnxMapping(constants=("scale",)))
    assert run(live, [[1, 1]]).tolist() == [[15], [106]]


ELEMENTS = {"F16": 10, "BF16": 16, "F64": 11, "I32": 6, "I64": 7, "U8": 2, "BOOL": 9}


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_tensors_of_other_dtypes(tmp_path: Path, dtype: str) -> None:
    stored_as = {"BF16": np.array(0x3F80, "<u2"), "F16": np.array(1, "<f2")}
    one = stored_as.get(dtype, np.array(1))
    initial = helper.make_tensor("w", ELEMENTS[dtype], [2], [0, 0])
    nodes = [
        helper.make_node("Cast", ["w"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    path = graph_of(nodes, [initial], [2], tmp_path / "m.onnx")
    weights = stored(tmp_path / "w.st", w=(dtype, np.stack([one, one * 0])))
    mapping = OnnxMapping.model_validate({"initializers": {"w": "w"}})
    live = LiveSession(path, weights.path, mapping)
    assert run(live, [0, 0]).tolist() == [1, 0]
    assert live.verify(weights, None).digest == weights.digest


def test_a_scalar(tmp_path: Path) -> None:
    values = [numpy_helper.from_array(np.array(1, np.float32), "w")]
    path = graph_of([helper.make_node("Mul", ["x", "w"], ["y"])], values, [1], tmp_path / "m.onnx")
    weights = stored(tmp_path / "w.st", w=("F32", np.array(7)))
    assert run(LiveSession(path, weights.path), [3]).tolist() == [21]


@pytest.fixture
def scaled(tmp_path: Path) -> Callable[[float], Weights]:
    """A model y = x * w beside weights of any w: `model.onnx`, large enough not to be inlined."""
    values = [numpy_helper.from_array(np.zeros(4096, np.float32), "w")]
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
    graph_of(nodes, values, [4096], tmp_path / "model.onnx")
    return lambda w: stored(tmp_path / f"{w:g}.st", w=("F32", np.full(4096, w)))


def test_the_session_has_its_own_copy(tmp_path: Path, scaled: Callable[[float], Weights]) -> None:
    """The file may be rewritten in place under it; its new content is taken when it is told."""
    weights = scaled(2)
    live = LiveSession(tmp_path / "model.onnx", weights.path)
    assert live.holds_copy
    in_place = weights.path.read_bytes()
    with weights.path.open("r+b") as file:
        file.write(scaled(3).path.read_bytes())
    assert set(run(live, np.ones(4096))) == {2}
    with WeightsReader(weights.path) as reader:
        new = Weights(weights.path, reader.digest().hex())
    live.prepare(Weights(new.path, new.digest, ready=False))
    live.swap(new)
    assert set(run(live, np.ones(4096))) == {3}
    weights.path.write_bytes(in_place)
    assert live.revert(weights).digest == weights.digest
    assert set(run(live, np.ones(4096))) == {2}


def test_refused_weights_change_nothing(tmp_path: Path, scaled: Callable[[float], Weights]) -> None:
    old = scaled(2)
    live = LiveSession(tmp_path / "model.onnx", old.path)
    new = stored(tmp_path / "new.st", w=("F32", np.ones(8)), v=("F32", np.ones(8)))
    with pytest.raises(RuntimeRefused, match=r"\[4096\].*\[8\].*'v' feeds no"):
        live.prepare(new)
    assert live.digest == old.digest
    assert set(run(live, np.ones(4096))) == {2}


def test_a_session_that_cannot_be_built_changes_nothing(
    tmp_path: Path, scaled: Callable[[float], Weights]
) -> None:
    def on_the_gpu(graph: bytes, options: onnxruntime.SessionOptions) -> Any:
        if live_since:
            raise MemoryError("the GPU is full")
        return open_on_cpu(graph, options)

    live_since: list[LiveSession] = []
    live = LiveSession(tmp_path / "model.onnx", scaled(2).path, open_session=on_the_gpu)
    live_since.append(live)
    with pytest.raises(RuntimeRefused, match="no session: the GPU is full"):
        live.prepare(scaled(3))
    assert set(run(live, np.ones(4096))) == {2}


def test_the_session_is_built_before_inferences_wait(
    tmp_path: Path, scaled: Callable[[float], Weights]
) -> None:
    """An inference that is under way all the time does not keep it from being built."""
    old, new = scaled(2), scaled(3)
    live = LiveSession(tmp_path / "model.onnx", old.path)
    with live.lease() as network:
        session = network.session
        live.prepare(new)
        with pytest.raises(HealthError, match="an inference did not end"):
            live.swap(new, seconds=0.01)
        assert network.session is session
    live.swap(new)
    assert set(run(live, np.ones(4096))) == {3}


def test_inferences_beside_updates_see_one_version_each(
    tmp_path: Path, scaled: Callable[[float], Weights]
) -> None:
    versions = [scaled(2), scaled(3)]
    live = LiveSession(tmp_path / "model.onnx", versions[0].path)
    seen: list[set[float]] = []
    enough = threading.Event()

    def infer() -> None:
        while not enough.is_set():
            seen.append(set(run(live, np.ones(4096)).tolist()))

    threads = [threading.Thread(target=infer) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(1, 21):
            update(live, versions[turn % 2])
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    assert {2.0} in seen
    assert all(len(answers) == 1 for answers in seen)


@pytest.mark.parametrize(
    ("content", "code"), [(None, "config.missing"), (b"\xff no model", "config.invalid")]
)
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes | None, code: str) -> None:
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(BadConfig) as raised:
        LiveSession(tmp_path / "model.onnx", tmp_path)
    assert raised.value.code == code


def test_a_broken_weights_file_changes_nothing(
    tmp_path: Path, scaled: Callable[[float], Weights]
) -> None:
    live = LiveSession(tmp_path / "model.onnx", scaled(2).path)
    new = scaled(3)
    new.path.write_bytes(new.path.read_bytes()[:-1])
    with pytest.raises(BadWeights):
        live.prepare(new)
    assert set(run(live, np.ones(4096))) == {2}


# Judging.


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image at a time."""
    return export(Classifier(), tmp_path_factory.mktemp("onnx") / "model.onnx", (1, 3, 2, 2))


def loaded(weights: dict[str, Any]) -> nn.Module:
    module = Classifier().eval()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return module


def golden(module: nn.Module, count: int) -> Golden:
    source = {"seed": 5, "shape": (3, 2, 2)}
    blank = golden_of([0] * count, classes=5, agree=1, source=source)
    with torch.no_grad():
        labels = module(torch.from_numpy(blank.inputs())).argmax(1).tolist()
    return golden_of(labels, classes=5, agree=count - 1, source=source)


@pytest.mark.parametrize("batch", [1, 4, None])
def test_golden_samples_in_batches_of_the_model(tmp_path: Path, batch: int | None) -> None:
    """However many the model takes at once, and whatever is left over for the last batch."""
    weights = seeded(Classifier(), 1)
    dynamic = {} if batch else {"dynamic_shapes": ({0: torch.export.Dim("n")},)}
    path = export(Classifier(), tmp_path / "m.onnx", (batch or 2, 3, 2, 2), **dynamic)
    first = stored(tmp_path / "1.st", **{n: ("F32", a) for n, a in weights.items()})
    other = stored(tmp_path / "2.st", **{n: ("F32", -a) for n, a in weights.items()})
    live = LiveSession(path, other.path, golden=True)
    expected = golden(loaded(weights), 10)
    live.swap(first)
    assert live.verify(first, expected).health == "passed"
    live.confirm(first)
    live.swap(other)
    with pytest.raises(HealthError, match="golden samples agree"):
        live.verify(other, expected)
    live.revert(first)
    live.close()


def test_a_program_may_judge_by_its_own_way(
    tmp_path: Path, scaled: Callable[[float], Weights]
) -> None:
    old, new, bad = scaled(2), scaled(3), scaled(99)
    ones = np.ones(4096, np.float32)

    def check(network: Network) -> bool | str:
        return bool(network.run({"x": ones})[0][0] < 50) or "too large"

    live = LiveSession(tmp_path / "model.onnx", old.path, check=check)
    live.swap(new)
    assert live.verify(new, None).health == "passed"
    live.confirm(new)
    live.swap(bad)
    with pytest.raises(HealthError, match="too large"):
        live.verify(bad, None)
    assert live.revert(new).digest == new.digest
    live.close()


def test_a_program_may_find_labels_by_its_own_way(
    tmp_path: Path, scaled: Callable[[float], Weights]
) -> None:
    def predict(network: Network, inputs: Any) -> list[int]:
        return [int(network.run({"x": np.resize(row, 4096) * 0 + 1})[0][0]) for row in inputs]

    old, new = scaled(2), scaled(3)
    live = LiveSession(tmp_path / "model.onnx", old.path, golden=True, predict=predict)
    expected = golden_of([3, 3], classes=5, agree=2, source={"seed": 1, "shape": (4,)})
    live.swap(new)
    assert live.verify(new, expected).health == "passed"
    live.close()


# The contract.


@pytest.fixture
def place(place: Place) -> Place:
    for slot, seed in (("a", 1), ("b", 2)):
        place.put(slot, seeded(Classifier(), seed))
    place.use("a")
    place.note("idle")
    return place


class TestLiveSession(RuntimeTests):
    @pytest.fixture
    def live(self, place: Place, classifier: Path) -> Iterator[LiveSession]:
        self.model = LiveSession(classifier, place.directory)
        yield self.model
        self.model.close()

    @pytest.fixture
    def runtime(self, live: LiveSession) -> Runtime:
        return live

    def uses(self, place: Place) -> str:
        """The slot whose weights give the session's answer in torch."""
        image = torch.full((1, 3, 2, 2), 0.5)
        modules = {
            place.held[slot].digest: loaded(seeded(Classifier(), seed))
            for slot, seed in (("a", 1), ("b", 2))
        }
        (found,) = [d for d, module in modules.items() if same(self.model, module, image)]
        return found


class TestLiveSessionWithACheck(TestLiveSession):
    @pytest.fixture
    def live(self, place: Place, classifier: Path) -> Iterator[LiveSession]:
        self.model = LiveSession(classifier, place.directory, check=lambda network: True)
        yield self.model
        self.model.close()


class TestProgramWithLiveSession(TestLiveSession):
    @pytest.fixture
    def runtime(self, live: LiveSession, tmp_path: Path) -> Iterator[Runtime]:
        socket = tmp_path / "weft.sock"
        settings = {"kind": "program", "socket": str(socket), "timeout_seconds": 20}
        config = ModelConfig.model_validate({"runtime": settings})
        with serve({"digits": live}, socket):
            yield open_runtime("digits", config, lambda: None)
