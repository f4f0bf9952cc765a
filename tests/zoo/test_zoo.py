from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from server import zoo
from server.errors import BadModel
from server.zoo.architecture import aliases
from shared import methods

# Model -> parameters, and those that KA with n = 3 learns (docs: the paper's Table 1 and formula).
COUNTS = {
    "vgg_tiny": (26_554, None),
    "vgg_small": (136_266, 7_413),
    "vgg_medium": (539_786, 14_672),
    "mobilenet_v2": (2_296_922, 122_632),
    "resnet18": (11_173_962, 122_973),
    "resnet50": (23_520_842, 310_656),
    "row_lstm": (82_186, None),
    "small_vit": (71_946, None),
}


class Tied(nn.Module):
    """Two linear layers over one weight, and a part that is frozen."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.fixed = nn.Parameter(torch.ones(width), requires_grad=False)


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_those_that_are_told(name: str) -> None:
    parameters, learnable_by_ka = COUNTS[name]
    architecture = zoo.get(name)
    schema, learnable = architecture.schema({}), architecture.learnable({})
    assert sum(schema[n].size for n in learnable) == parameters
    if learnable_by_ka is not None:
        ka = methods.get("ka")
        options = methods.options(ka, {"rank": 3})
        matrices = [schema[n] for n in learnable if len(schema[n].shape) > 1]
        others = sum(schema[n].size for n in learnable if len(schema[n].shape) == 1)
        assert sum(ka.count(*m.matrix, options) for m in matrices) + others == learnable_by_ka


@pytest.mark.parametrize("name", zoo.names())
def test_takes_images_and_gives_logits(name: str) -> None:
    module = zoo.get(name).build({"in_channels": 1, "classes": 7}).eval()
    with torch.no_grad():
        assert module(torch.zeros(2, 1, 28, 28)).shape == (2, 7)


@pytest.mark.parametrize("name", zoo.names())
def test_names_are_plain_and_nothing_is_tied(name: str) -> None:
    architecture = zoo.get(name)
    assert not architecture.aliases({})
    assert set(architecture.schema({})) == set(architecture.build({}).state_dict())
    assert all("parametrizations" not in n for n in architecture.schema({}))


def test_tied_weights_are_one_storage() -> None:
    architecture = zoo.Architecture("tied", Tied)
    assert architecture.aliases({}) == {"second.weight": "first.weight"}
    assert "second.weight" not in architecture.schema({})
    assert architecture.learnable({}) == {"first.weight", "first.bias", "second.bias"}
    assert aliases(architecture.build({"width": 2})) == {"second.weight": "first.weight"}


def test_own_factories_come_from_allowed_modules_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fleet_models", sys.modules[__name__])
    own = zoo.get("fleet_models:Tied", modules=["fleet_models"])
    assert own.schema({"width": 3})["fixed"].shape == (3,)
    for refused in ("os:system", "fleet_models.inner:Tied", "fleet_models:_fixed", "nobody"):
        with pytest.raises(BadModel) as caught:
            zoo.get(refused, modules=["fleet_models"])
        assert caught.value.code == "model.unknown_architecture"


def test_settings_say_which_modules_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fleet_models", sys.modules[__name__])
    monkeypatch.setenv("WEFT_MODEL_MODULES", "other,fleet_models")
    assert zoo.get("fleet_models:Tied").aliases({})
    monkeypatch.delenv("WEFT_MODEL_MODULES")
    with pytest.raises(BadModel):
        zoo.get("fleet_models:Tied")


@pytest.mark.parametrize("arguments", [{"depth": 3}, {"classes": -1}, {"classes": "ten"}])
def test_arguments_that_the_factory_refuses(arguments: dict[str, object]) -> None:
    with pytest.raises(BadModel) as caught:
        zoo.get("vgg_tiny").build(arguments)
    assert "vgg_tiny" in caught.value.message


def test_a_factory_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fleet_models", sys.modules[__name__])
    for missing in ("fleet_models:Absent", "no_such_module:Net"):
        with pytest.raises(BadModel):
            zoo.get(missing, modules=["fleet_models", "no_such_module"])


@pytest.mark.parametrize("name", ["pytest", "BadModel", "aliases", "COUNTS"])
def test_what_a_module_only_uses_is_no_factory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fleet_models", sys.modules[__name__])
    with pytest.raises(BadModel):
        zoo.get(f"fleet_models:{name}", modules=["fleet_models"])


def test_what_a_module_exports_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fleet_models", sys.modules[__name__])
    monkeypatch.setattr(sys.modules[__name__], "__all__", ["aliases"], raising=False)
    assert zoo.get("fleet_models:aliases", modules=["fleet_models"])


def no_module() -> dict[str, int]:
    return {}


def test_what_makes_no_module() -> None:
    with pytest.raises(BadModel, match="makes no module but a dict"):
        zoo.Architecture("none", no_module).schema({})


class Gradual(nn.Module):
    """Looks at numbers while it is built, which tensors without memory do not have."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        rates = [float(rate) for rate in torch.linspace(0, 1, depth)]
        self.layers = nn.ModuleList(nn.Sequential(nn.Dropout(r), nn.Linear(2, 2)) for r in rates)


def test_the_schema_of_what_cannot_be_outlined() -> None:
    assert len(zoo.Architecture("gradual", Gradual).schema({"depth": 4})) == 8


def test_a_request_for_a_huge_model_takes_no_memory() -> None:
    schema = zoo.get("vgg_small").schema({"classes": 1 << 40})
    assert sum(spec.nbytes for spec in schema.values()) > 1 << 47


@pytest.mark.parametrize("name", zoo.names())
def test_an_outline_is_the_whole_but_for_its_numbers(name: str) -> None:
    architecture = zoo.get(name)
    real, outline = architecture.build({}), architecture.outline({})
    assert outline.state_dict().keys() == real.state_dict().keys()
    for key, tensor in outline.state_dict().items():
        assert tensor.device.type == "meta"
        assert (tensor.shape, tensor.dtype) == (
            real.state_dict()[key].shape,
            real.state_dict()[key].dtype,
        )
