"""What is sent of tensors that no method serves, and of a method's options."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from server.packaging.assemble import header
from server.packaging.sent import send_elements
from shared import methods
from shared.package import PackageHeader
from shared.plans import Plan
from shared.tensors import TensorSpec
from shared.weights import WeightsReader, write_weights

SPEC = TensorSpec("b", "F32", (4,))
OLD = np.array([0.0, 1.0, -2.0, 0.5], np.float32)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[WeightsReader]:
    write_weights(tmp_path / "base", {"b": ("F32", OLD)})
    with WeightsReader(tmp_path / "base") as reader:
        yield reader


def test_a_step_that_is_fine_enough_is_not_made_finer(base: WeightsReader) -> None:
    new = OLD + np.array([0.5, -1.0, 0.2, 0.0])
    sent = send_elements(base, SPEC, new, 8, step=0.25)
    assert sent.plan.steps[0].value == 0.25
    np.testing.assert_array_equal(sent.symbols[0], [2, -4, 1, 0])


def test_bits_are_kept_to_where_the_step_would_take_more(base: WeightsReader) -> None:
    new = OLD + np.array([100.0, 0.0, 0.0, 0.0])
    sent = send_elements(base, SPEC, new, 8, step=0.25)
    assert sent.symbols[0].max() == 127
    assert sent.plan.steps[0].value == pytest.approx(100 / 127, rel=0.01)


def test_what_is_below_half_a_step_stays_but_a_new_tensor_does_not(base: WeightsReader) -> None:
    new = OLD + 0.01
    assert send_elements(base, SPEC, new, 8, step=0.25).plan.plan is Plan.UNCHANGED
    fresh = TensorSpec("c", "F32", (4,))
    assert send_elements(base, fresh, np.full(4, 0.01), 8, step=0.25).plan.plan is Plan.RAW


def test_options_of_training_stay_at_home() -> None:
    sparse = methods.get("sparse")
    options = methods.options(sparse, {"step": 0.5, "rate": 1e-4, "bytes": 1000, "bits": 6})
    assert header(sparse, options, "m").options == {"bits": 6}


def test_packages_that_tell_of_training_are_still_read() -> None:
    fields = {"step": 0.7, "rate": 1e-5, "bits": 8}
    head = PackageHeader(
        format=1, model="m", method="sparse/1", options=fields, coder="range/1", tool="weft 0.1.0"
    )
    method, options = methods.of_package(head)
    assert method.id == "sparse"
    assert options.bits == 8
