"""Which tensor feeds which initializer, and what is refused by name. Without ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from edge_agent.errors import RuntimeRefused
from edge_agent.runtimes.onnx_mapping import OnnxMapping, Source, load_mapping
from shared.errors import BadConfig
from shared.tensors import Schema, TensorSpec, schema_of


def schema(**shapes: tuple[int, ...]) -> Schema:
    """Tensors of float32, `__` for a dot in a name; those named `shape...` are of int64."""
    return schema_of(
        TensorSpec(name.replace("__", "."), "I64" if name.startswith("shape") else "F32", shape)
        for name, shape in shapes.items()
    )


def refused(graph: Schema, weights: Schema, **mapping: object) -> str:
    with pytest.raises(RuntimeRefused) as raised:
        OnnxMapping.model_validate(mapping).check(graph, weights)
    assert raised.value.code == "runtime.refused"
    return raised.value.message


def test_initializers_are_fed_by_name() -> None:
    graph = schema(fc__weight=(4, 3), fc__bias=(4,))
    OnnxMapping().check(graph, graph)
    assert OnnxMapping().fed(graph)["fc.weight"] == Source(tensor="fc.weight")


def test_another_name_and_an_order_of_dimensions_are_declared() -> None:
    graph, weights = schema(MatMul_1=(3, 4)), schema(fc__weight=(4, 3))
    given = {"MatMul_1": {"tensor": "fc.weight", "transpose": [1, 0]}}
    OnnxMapping.model_validate({"initializers": given}).check(graph, weights)
    swapped = np.arange(12.0).reshape(4, 3)
    arranged = Source(tensor="fc.weight", transpose=(1, 0)).arrange(swapped)
    assert arranged.flags.c_contiguous
    assert np.array_equal(arranged, swapped.T)


def test_a_tensor_that_needs_no_arranging_is_not_copied() -> None:
    scalar = np.array(3.0)
    assert Source(tensor="x").arrange(scalar) is scalar


def test_tied_weights_feed_several() -> None:
    graph, weights = schema(embedding=(9, 4), head=(9, 4)), schema(embedding=(9, 4))
    assert "no tensor 'head'" in refused(graph, weights)
    tied = OnnxMapping.model_validate({"initializers": {"head": "embedding"}})
    tied.check(graph, weights)
    assert tied.fed(graph)["head"].tensor == "embedding"


def test_tensors_that_feed_nothing_are_refused_unless_ignored() -> None:
    graph = schema(conv__weight=(2, 2))
    weights = schema(conv__weight=(2, 2), bn__weight=(2,), bn__bias=(2,))
    message = refused(graph, weights)
    assert "'bn.weight'" in message
    assert "'bn.bias'" in message
    assert "conv.weight" not in message
    OnnxMapping(ignored=("bn.*",)).check(graph, weights)
    assert "'bn.bias'" in refused(graph, weights, ignored=["bn.weight"])


def test_counters_of_batches_are_never_asked_for() -> None:
    weights = schema(w=(2,), num_batches_tracked=(), bn__num_batches_tracked=())
    OnnxMapping().check(schema(w=(2,)), weights)
    assert "batches_seen" in refused(schema(w=(2,)), schema(w=(2,), bn__batches_seen=()))


def test_shapes_that_the_exporter_computed_stay() -> None:
    graph = schema(w=(2,), shape_1=(2,), shape_2=())
    OnnxMapping().check(graph, schema(w=(2,)))
    assert set(OnnxMapping().fed(graph)) == {"w"}
    assert "no tensor 'shape_3'" in refused(schema(w=(2,), shape_3=(2, 2)), schema(w=(2,)))


def test_a_vector_of_integers_of_the_weights_is_named_to_be_fed() -> None:
    both = schema(w=(2,), shape_1=(2,))
    assert "the tensor 'shape_1' feeds no initializer" in refused(both, both)
    mapping = OnnxMapping.model_validate({"initializers": {"shape_1": "shape_1"}})
    mapping.check(both, both)
    assert set(mapping.fed(both)) == {"w", "shape_1"}


def test_constants_stay() -> None:
    graph = schema(w=(2,), mean=(3,))
    assert "no tensor 'mean' for the initializer 'mean'" in refused(graph, schema(w=(2,)))
    OnnxMapping(constants=("mean",)).check(graph, schema(w=(2,)))


def test_a_name_with_brackets_names_itself() -> None:
    graph = schema_of([TensorSpec("w[0]", "F32", (2,))])
    assert OnnxMapping(constants=("w[0]",)).fed(graph) == {}


@pytest.mark.parametrize(
    ("graph", "weights", "said"),
    [
        (schema(w=(4, 3)), schema(w=(4, 5)), "'w' is [4, 3] in the model and [4, 5] in the weight"),
        (schema(w=(12,)), schema(w=(4, 3)), "'w' is [12] in the model and [4, 3]"),
        (
            schema_of([TensorSpec("w", "F16", (2,))]),
            schema(w=(2,)),
            "'w' is F16 in the model and F32",
        ),
        (schema_of([TensorSpec("w", "STRING", (2,))]), schema(w=(2,)), "'w' is STRING"),
    ],
)
def test_other_shapes_and_dtypes_are_refused(graph: Schema, weights: Schema, said: str) -> None:
    assert said in refused(graph, weights)


def test_an_order_that_does_not_fit_is_refused() -> None:
    given = {"w": {"tensor": "w", "transpose": [1, 0]}}
    message = refused(schema(w=(3, 4)), schema(w=(3, 4)), initializers=given)
    assert "[3, 4] in the order [1, 0]" in message
    assert "'w' is" in refused(schema(w=(3,)), schema(w=(3,)), initializers=given)


def test_what_the_model_lacks_is_named() -> None:
    message = refused(schema(w=(2,)), schema(w=(2,)), initializers={"v": "w"})
    assert "the model has no initializer 'v'" in message


def test_a_long_list_of_names_is_cut() -> None:
    message = refused(schema(), schema(**{f"w{n}": (2,) for n in range(50)}))
    assert message.endswith("; and 30 more")


@pytest.mark.parametrize("order", [[0, 0], [1], [0, 2], [-1, 0]])
def test_an_order_names_each_dimension_once(order: list[int]) -> None:
    with pytest.raises(ValidationError, match="is no order of"):
        Source.model_validate({"tensor": "w", "transpose": order})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.toml", 'ignored = ["aux.*"]\n[initializers]\nhead = "embedding"\n'),
        ("map.json", '{"ignored": ["aux.*"], "initializers": {"head": {"tensor": "embedding"}}}'),
    ],
)
def test_a_mapping_is_read_from_a_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    expected = OnnxMapping(ignored=("aux.*",), initializers={"head": Source(tensor="embedding")})
    assert load_mapping(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("map.toml", "ignored = [", "map.toml"),
        ("map.json", "{", "map.json"),
        ("map.json", "[]", "map.json"),
        ("map.json", '{"initializers": 3}', "initializers"),
        ("map.toml", 'folded = ["x"]', "folded"),
        ("map.toml", "[initializers]\nw = { tensor = 'w', transpose = [1] }", "transpose"),
    ],
)
def test_a_broken_mapping_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadConfig, match=said) as raised:
        load_mapping(tmp_path / name)
    assert raised.value.code == "config.invalid"


def test_a_missing_mapping_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig) as raised:
        load_mapping(tmp_path / "none.toml")
    assert raised.value.code == "config.missing"
