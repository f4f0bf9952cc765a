"""Torch modules that take new weights while they run: whole, exact, or not at all."""

from __future__ import annotations

import itertools
import json
import re
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edge_agent.errors import RuntimeRefused
from edge_agent.runtimes import Weights
from edge_agent.runtimes.torch_live import LiveModel, TorchNet, top_labels
from shared.errors import BadWeights
from shared.golden import drawn, golden_of
from shared.tensors import Array
from shared.weights import WeightsReader, write_weights
from tests.runtimes.contract import Place
from tests.runtimes.networks import Chain, Classifier, chain, held_by, seeded


def load(module: nn.Module, place: Place, tensors: dict[str, Array], slot: Any = "a") -> LiveModel:
    place.put(slot, tensors)
    place.use(slot)
    return LiveModel(module, place.directory)


def refusal(module: nn.Module, place: Place, tensors: dict[str, Array]) -> str:
    with pytest.raises(RuntimeRefused) as raised:
        load(module, place, tensors)
    return raised.value.message


def change_of(module: nn.Module, path: Path) -> Any:
    return TorchNet(module, top_labels).change(path, keep=False)


def test_only_the_tensors_that_differ_are_copied_and_stay_where_they_are(place: Place) -> None:
    module = Classifier().eval()
    old = seeded(module, 1)
    live = load(module, place, old)
    addresses = [tensor.data_ptr() for tensor in module.state_dict().values()]
    new = place.put("b", old | {"head.bias": old["head.bias"] + 1})
    assert change_of(module, new.path).nbytes == old["head.bias"].nbytes
    live.swap(new)
    assert [tensor.data_ptr() for tensor in module.state_dict().values()] == addresses
    assert held_by(module) == new.digest


def test_bits_count_where_numbers_are_equal_or_are_none(place: Place) -> None:
    """-0.0 equals 0.0, and NaN does not equal itself."""
    module = nn.Linear(2, 1).eval()
    zero = {"weight": np.array([[0.0, np.inf]], "f4"), "bias": np.array([np.nan], "f4")}
    live = load(module, place, zero)
    assert change_of(module, place.held["a"].path).nbytes == 0
    new = place.put("b", zero | {"weight": np.array([[-0.0, np.inf]], "f4")})
    assert change_of(module, new.path).nbytes == 8
    live.swap(new)
    assert live.verify(new, None).digest == new.digest


def test_what_does_not_differ_is_not_held_in_memory_beside_the_model(place: Place) -> None:
    """Pages of the new file that stay with the program, told by the kernel."""
    module = nn.Sequential(*(nn.Linear(512, 512, bias=False) for _ in range(8))).eval()
    old = seeded(module, 1)
    load(module, place, old)
    new = place.put("b", old | {"3.weight": old["3.weight"] + 1})
    change = change_of(module, new.path)
    assert change.nbytes == 1 << 20
    assert change.nbytes <= resident(new.path) <= change.nbytes + (256 << 10)  # of 8 MiB
    change.close()
    assert resident(new.path) == 0


def resident(path: Path) -> int:
    """Bytes of a file that are mapped and in memory."""
    areas = re.split(r"^(?=[0-9a-f]+-)", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    mine = [area for area in areas if area.partition("\n")[0].endswith(str(path))]
    return sum(int(re.search(r"^Rss: +(\d+) kB", area, re.M)[1]) << 10 for area in mine)


def test_no_inference_meets_weights_of_two_versions(place: Place) -> None:
    """Two threads infer without a pause; each answer is the list of versions that it met."""
    module = Chain().eval()
    live = load(module, place, chain(0))
    met: list[list[float]] = []
    over = threading.Event()

    def infer() -> None:
        x = torch.zeros(1)
        while not over.is_set():
            with live.lease(timeout=20) as model, torch.inference_mode():
                met.append(model(x).tolist())

    threads = [threading.Thread(target=infer) for _ in range(2)]
    for thread in threads:
        thread.start()
    for version, slot in zip(range(1, 61), itertools.cycle("ba"), strict=False):
        before = len(met)
        new = place.put(slot, chain(version))
        live.prepare(new)
        live.swap(new)
        while len(met) < before + 2 and all(thread.is_alive() for thread in threads):
            pass
    over.set()
    for thread in threads:
        thread.join(20)
    assert not [versions for versions in met if len(versions) != 1]
    seen = [versions[0] for versions in met]
    assert seen[-1] == 60
    assert len(set(seen)) > 20


def test_that_network_tells_a_mix(place: Place) -> None:
    """The test above can fail."""
    module = Chain().eval()
    load(module, place, chain(3, layers=5))
    assert module(torch.zeros(1)).tolist() == [0, 3]


class Tied(nn.Module):
    """Input and output share a matrix, as language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.output = nn.Linear(4, 6, bias=False)
        self.output.weight = self.embedding.weight


@pytest.mark.parametrize("names", [["embedding.weight"], ["output.weight"], "both"])
def test_tied_weights_stay_tied_and_are_copied_once(place: Place, names: Any) -> None:
    module = Tied().eval()
    names = ["embedding.weight", "output.weight"] if names == "both" else names
    matrix = np.arange(24, dtype="f4").reshape(6, 4)
    live = load(module, place, dict.fromkeys(names, matrix))
    new = place.put("b", dict.fromkeys(names, matrix + 1))
    live.swap(new)
    assert live.verify(new, None).digest == new.digest
    assert module.output.weight is module.embedding.weight
    assert torch.equal(module.output.weight, torch.from_numpy(matrix + 1))


def test_weights_that_differ_where_the_module_is_tied_are_refused(place: Place) -> None:
    one, other = np.zeros((6, 4), "f4"), np.ones((6, 4), "f4")
    said = refusal(Tied().eval(), place, {"embedding.weight": one, "output.weight": other})
    assert "'embedding.weight'" in said
    assert "'output.weight'" in said


def test_a_module_in_another_memory_format(place: Place) -> None:
    module = nn.Conv2d(3, 4, 3).eval().to(memory_format=torch.channels_last)
    assert not module.weight.is_contiguous()
    live = load(module, place, seeded(module, 1))
    new = place.put("b", seeded(module, 2))
    live.swap(new)
    assert live.verify(new, None).digest == new.digest
    assert not module.weight.is_contiguous()


@pytest.mark.parametrize(
    ("dtype", "name", "storage"),
    [
        (torch.float64, "F64", "<f8"),
        (torch.bfloat16, "BF16", "<u2"),
        (torch.float16, "F16", "<f2"),
        (torch.int64, "I64", "<i8"),
        (torch.uint16, "U16", "<u2"),
        (torch.bool, "BOOL", "u1"),
        (torch.float8_e4m3fn, "F8_E4M3", "u1"),
    ],
)
def test_every_dtype_arrives_to_the_bit(
    tmp_path: Path, dtype: torch.dtype, name: str, storage: str
) -> None:
    module = nn.Module()
    module.register_buffer("x", torch.zeros(3, 2).to(dtype))
    module.register_buffer("scalar", torch.zeros(()).to(dtype))
    module.register_buffer("none", torch.zeros(0, 4).to(dtype))
    ones = np.ones((3, 2), storage)
    path = tmp_path / "w.safetensors"
    tensors = {"x": ones, "scalar": np.ones((), storage), "none": np.ones((0, 4), storage)}
    write_weights(path, {key: (name, array) for key, array in tensors.items()})
    live = LiveModel(module, path)
    with WeightsReader(path) as reader:
        assert live.digest == reader.digest().hex()


def test_files_of_others_may_have_tensors_anywhere(tmp_path: Path) -> None:
    """Tensors need not be aligned in a safetensors file."""
    header = {
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "w.safetensors"
    data = b"\x07" + np.array([1.5, -2], "<f4").tobytes()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    module = nn.Module()
    module.register_buffer("a", torch.zeros(1, dtype=torch.uint8))
    module.register_buffer("b", torch.zeros(2))
    LiveModel(module, path)
    assert (module.a.tolist(), module.b.tolist()) == ([7], [1.5, -2])


# What is refused, by name, with nothing changed.


def without(tensors: dict[str, Array], name: str) -> dict[str, Array]:
    return {key: array for key, array in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("mend", "said"),
    [
        (lambda w: w | {"head.weight": w["head.weight"][:, :3]}, "'head.weight' is [5, 16]"),
        (lambda w: without(w, "body.bias"), "'body.bias' is in the module and not"),
        (lambda w: w | {"tail.bias": w["head.bias"]}, "'tail.bias' is not in the module"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(
    place: Place, mend: Callable[[dict[str, Array]], dict[str, Array]], said: str
) -> None:
    module = Classifier().eval()
    old = seeded(module, 1)
    live = load(module, place, old)
    new = place.put("b", mend(seeded(module, 2)))
    for call in (live.prepare, live.swap):
        with pytest.raises(RuntimeRefused) as raised:
            call(new)
        assert said in raised.value.message
    assert held_by(module) == place.held["a"].digest
    with live.lease(timeout=0):
        pass


def test_all_that_does_not_fit_is_named_up_to_a_limit(place: Place) -> None:
    many = {f"layer{n:02}.weight": np.zeros(2, "f4") for n in range(30)}
    said = refusal(nn.Linear(2, 2), place, many)
    assert "'layer00.weight'" in said
    assert "'layer19.weight'" in said
    assert said.endswith("and 12 more")


def test_another_dtype_is_refused(place: Place) -> None:
    module = Classifier().eval().half()
    said = refusal(module, place, seeded(Classifier(), 1))
    assert "'body.bias' is torch.float16 in the module and F32 in the weights" in said


def test_a_fused_module_is_refused(place: Place) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    weights = seeded(module, 1) | {"1.running_var": np.ones(2, "f4")}
    fused = torch.nn.utils.fuse_conv_bn_eval(module[0], module[1])
    said = refusal(nn.Sequential(fused, nn.Identity()), place, weights)
    assert "'1.weight' is not in the module" in said
    assert "frozen, or fused" in said


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_frozen_script_module_is_refused_and_one_that_is_not_frozen_works(place: Place) -> None:
    weights = seeded(Classifier(), 1)
    scripted = torch.jit.script(Classifier().eval())
    live = load(scripted, place, weights)
    assert live.digest == place.held["a"].digest
    frozen = torch.jit.freeze(torch.jit.script(Classifier().eval()))
    assert "'body.weight' is not in the module" in refusal(frozen, place, weights)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*deprecated:UserWarning")
def test_a_quantised_module_is_refused(place: Place) -> None:
    module = torch.ao.quantization.quantize_dynamic(Classifier().eval(), {nn.Linear})
    said = refusal(module, place, seeded(Classifier(), 1))
    assert "'body.weight' is not in the module" in said
    assert "'body.scale' is in the module" in said


def test_tensors_of_inference_mode_are_refused(place: Place) -> None:
    with torch.inference_mode():
        module = Classifier().eval()
    said = refusal(module, place, seeded(Classifier(), 1))
    assert "'body.bias' was made in inference mode" in said


def test_tensors_without_elements_of_their_own_are_refused(place: Place) -> None:
    shown = nn.Module()
    shown.register_buffer("x", torch.zeros(1).expand(4))
    assert "'x' is one element" in refusal(shown, place, {"x": np.zeros(4, "f4")})
    with torch.device("meta"):
        nowhere = nn.Linear(2, 2)
    assert "'bias' has no elements" in refusal(nowhere, place, seeded(nn.Linear(2, 2), 1))


def test_a_computed_tensor_is_refused(place: Place) -> None:
    module = nn.Linear(2, 2)
    module.register_state_dict_post_hook(
        lambda module, state, prefix, _: state.update({prefix + "weight": module.weight * 2})
    )
    said = refusal(module, place, seeded(nn.Linear(2, 2), 1))
    assert said == "'weight' is computed by the module, not held"


def test_parametrised_weights_are_refused(place: Place) -> None:
    module = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    said = refusal(module, place, seeded(nn.Linear(2, 2), 1))
    assert "'weight' is not in the module" in said


def test_a_file_that_is_no_weights_file_changes_nothing(place: Place) -> None:
    module = Classifier().eval()
    live = load(module, place, seeded(module, 1))
    path = place.directory / "slots" / "b.safetensors"
    path.write_bytes(b"\x00" * 40)
    with pytest.raises(BadWeights):
        live.prepare(Weights(path, "00" * 32, 2))
    assert held_by(module) == place.held["a"].digest


# Golden samples.


class Shifted(Classifier):
    """The same tensors, another preprocessing."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(0.5 - x)


def test_golden_samples_tell_a_program_that_computes_something_else(place: Place) -> None:
    module = Classifier().eval()
    weights = seeded(module, 1)
    live = load(module, place, weights)
    labels = top_labels(module, drawn(3, 24, (12,)))
    golden = golden_of(labels, 5, 22, {"seed": 3, "shape": (12,)})
    live = LiveModel(module.train(), place.directory, golden=True)
    assert live.verify(place.held["a"], golden).health == "passed"
    assert module.training  # as it was
    other = LiveModel(Shifted().eval(), place.directory, golden=True)
    with pytest.raises(Exception, match="of 24 golden samples agree, 22 must"):
        other.verify(place.held["a"], golden)


def test_a_program_may_have_its_own_way_to_labels(place: Place) -> None:
    module = Classifier().eval()
    place.put("a", seeded(module, 1))
    place.use("a")
    given: list[tuple[int, ...]] = []

    def predict(model: nn.Module, inputs: Array) -> list[int]:
        given.append(inputs.shape)
        return [4] * len(inputs)

    live = LiveModel(module, place.directory, golden=True, predict=predict)
    golden = golden_of([4, 4, 4], 5, 3, {"seed": 3, "shape": (3, 2, 2)})
    assert live.verify(place.held["a"], golden).health == "passed"
    assert given == [(3, 3, 2, 2)]


# CUDA.


@pytest.mark.cuda
def test_on_a_gpu(place: Place) -> None:
    module = Classifier().eval().cuda()
    live = load(module, place, seeded(module, 1))
    old = seeded(module, 1)
    new = place.put("b", old | {"head.bias": old["head.bias"] + 1})
    assert change_of(module, new.path).nbytes == old["head.bias"].nbytes
    live.swap(new)
    assert live.verify(new, None).digest == new.digest
    assert module.head.bias.is_cuda


@pytest.mark.cuda
def test_on_a_gpu_no_inference_meets_weights_of_two_versions(place: Place) -> None:
    module = Chain().eval().cuda()
    live = load(module, place, chain(0))
    over, met = threading.Event(), []

    def infer() -> None:
        x = torch.zeros(1, device="cuda")
        while not over.is_set():
            with live.lease(timeout=20) as model, torch.inference_mode():
                met.append(model(x).tolist())

    thread = threading.Thread(target=infer)
    thread.start()
    for version, slot in zip(range(1, 31), itertools.cycle("ba"), strict=False):
        live.swap(place.put(slot, chain(version)))
    over.set()
    thread.join(20)
    assert not [versions for versions in met if len(versions) != 1]
