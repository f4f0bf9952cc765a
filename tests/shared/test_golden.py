"""Golden samples: exact inputs, few bytes, and a verdict that near ties cannot turn."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import BadWeights
from shared.golden import MAX_BYTES, Golden, drawn, golden_of, load_samples, samples_digest
from shared.package import PackageHeader
from shared.weights import WeightsReader, write_weights

SEED: dict[str, Any] = {"seed": 7, "shape": (3, 2)}
SAMPLES: dict[str, Any] = {"samples": "ab" * 32}


def test_the_inputs_of_a_seed_never_change() -> None:
    """Packages in the field rely on these very bits."""
    inputs = drawn(7, 64, (3, 32, 32))
    digest = hashlib.sha256(inputs.astype("<f4").tobytes()).hexdigest()
    assert digest == "26b918ed69e8785d284ccd1ff241a8a53ccf8b0d26625cfb19279c30d1f610cc"
    assert (inputs.dtype, inputs.shape) == (np.float32, (64, 3, 32, 32))
    assert (inputs.min() >= -1, inputs.max() < 1, abs(inputs.mean()) < 0.01) == (True,) * 3


def test_an_input_does_not_depend_on_how_many_there_are() -> None:
    assert np.array_equal(drawn(7, 5, (2, 2)), drawn(7, 9, (2, 2))[:5])
    assert not np.array_equal(drawn(7, 5, (2, 2)), drawn(8, 5, (2, 2)))


@given(
    st.integers(2, 1 << 16).flatmap(
        lambda classes: st.tuples(
            st.just(classes), st.lists(st.integers(0, classes - 1), min_size=1, max_size=12)
        )
    ),
    st.sampled_from([SEED, SAMPLES]),
)
def test_labels_survive_and_their_size_is_known(
    given: tuple[int, list[int]], source: dict[str, Any]
) -> None:
    classes, labels = given
    golden = golden_of(labels, classes, 1, source)
    assert Golden.model_validate(json.loads(json.dumps(golden.fields()))) == golden
    assert (golden.expected, golden.count) == (labels, len(labels))
    assert golden.disagreement(labels) is None


def test_its_size_is_what_it_adds_to_a_package() -> None:
    plain = PackageHeader(format=1, model="m", method="ka/1", coder="zstd/1", tool="t")

    def size(header: PackageHeader) -> int:
        return len(json.dumps(json.dumps(header.fields(), sort_keys=True, separators=(",", ":"))))

    for labels in ([1], [1, 2, 3] * 15):
        golden = golden_of(labels, 10, 1, SEED)
        assert golden.package_bytes == size(plain.with_golden(golden)) - size(plain)


@pytest.mark.parametrize(("source", "classes"), [(SEED, 10), (SAMPLES, 10), (SEED, 1000)])
def test_it_has_room_for_some_samples_and_not_for_more(
    source: dict[str, Any], classes: int
) -> None:
    fit = 20 if classes == 10 else 16
    assert golden_of([1] * fit, classes, 1, source).package_bytes <= MAX_BYTES
    with pytest.raises(ValueError, match=r"bytes|too many"):
        golden_of([1] * 100, classes, 1, source)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": None},
        {"samples": "ab" * 32},
        {"shape": ()},
        {"shape": (0,)},
        {"seed": 1 << 32},
        {"seed": -1},
        {"classes": 1},
        {"classes": 5},  # label 9
        {"agree": 0},
        {"agree": 4},
        {"labels": ""},
        {"labels": "AQIJ="},
        {"labels": "AQI"},
        {"labels": "AQ=="[:3]},
        {"shape": (1 << 16, 1 << 16)},
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    sound = {"seed": 7, "shape": (2,), "classes": 10, "agree": 3, "labels": "AQIJ"}
    assert Golden.model_validate(sound).expected == [1, 2, 9]
    with pytest.raises(ValueError, match="validation error"):
        Golden.model_validate(sound | changes)


@pytest.mark.parametrize("labels", [[-1], [10], [256], []])
def test_labels_that_are_none_are_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="label"):
        golden_of(labels, 10, 1, SEED)


def test_some_may_differ() -> None:
    golden = golden_of([1, 2, 3, 4], 10, 3, SEED)
    assert golden.disagreement([1, 2, 3, 9]) is None
    assert golden.disagreement([1, 2, 9, 9]) == "2 of 4 golden samples agree, 3 must"
    assert golden.disagreement([1, 2, 3]) == "3 answers to 4 golden samples"


def test_samples_in_a_file(tmp_path: Path) -> None:
    inputs = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    path = tmp_path / "samples.safetensors"
    write_weights(path, {"inputs": ("F32", inputs)})
    assert np.array_equal(load_samples(path), inputs)
    with WeightsReader(path) as reader:
        assert samples_digest(inputs) == reader.digest().hex()
    write_weights(path, {"images": ("F32", inputs)})
    with pytest.raises(BadWeights, match="inputs"):
        load_samples(path)
