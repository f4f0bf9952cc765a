"""A trained change in fewer bytes than it takes: what goes, and where it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.errors import BadRefinement
from server.publish import spec
from server.publish.budget.fitting import fit
from server.publish.spec import Result, Task
from server.publish.update import make_update
from server.refine.job import Job

Fitted = Callable[[int], Result]


def _ignore(line: dict[str, Any]) -> None:
    return


@pytest.fixture
def trained(refinement_folder: Any, tmp_path: Path) -> Callable[..., tuple[Result, Fitted]]:
    """Train once; gives the result, and what fits it into so many bytes."""

    def train(method: str, options: dict[str, Any], **recipe: Any) -> tuple[Result, Fitted]:
        folder = refinement_folder(method, options, **recipe)
        task = Task.model_validate_json((folder / spec.SPEC).read_bytes())
        job = Job(task.job, folder)
        result = make_update(task, job, folder, _ignore)

        def fitted(most: int) -> Result:
            place = tmp_path / f"fitted-{most}"
            place.mkdir()
            found = fit(task, job, place, result.package_bytes, most, _ignore)
            assert (place / spec.PACKAGE).stat().st_size == found.package_bytes
            return found

        return result, fitted

    return train


@pytest.mark.parametrize(
    ("method", "options"), [("sparse", {"step": 0.3, "rate": 0.0}), ("direct", {})]
)
def test_symbols_go_until_it_fits_and_no_further(
    trained: Any, method: str, options: dict[str, Any]
) -> None:
    result, fitted = trained(method, options, epochs=3, learning_rate=0.2)
    middle = (result.package_bytes + 400) // 2
    found = fitted(middle)
    assert 0.9 * middle <= found.package_bytes <= middle
    assert found.result_digest != result.result_digest


def test_what_matters_stays_to_the_last(trained: Any) -> None:
    """With three quarters of the bytes the change still does most of its work."""
    result, fitted = trained("direct", {}, epochs=6)
    gained = result.metrics["accuracy_after"] - result.metrics["accuracy_before"]
    found = fitted(result.package_bytes * 3 // 4).metrics
    assert gained > 0.3
    assert found["accuracy_after"] - found["accuracy_before"] > 0.6 * gained


def test_biases_and_batchnorm_become_coarser_where_nothing_else_is_left(trained: Any) -> None:
    result, fitted = trained("sparse", {}, epochs=2, matrices=False)
    found = fitted(result.package_bytes - 10)
    assert found.package_bytes <= result.package_bytes - 10
    assert found.result_digest != found.base_digest


def test_what_can_be_left_out_has_an_end_that_is_told(trained: Any) -> None:
    _, fitted = trained("sparse", {}, epochs=1, matrices=False)
    with pytest.raises(BadRefinement, match="the least change that was found takes 3") as e:
        fitted(200)
    assert e.value.code == "refinement.too_few_bytes"
