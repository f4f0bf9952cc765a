from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import BadRefinement
from server.publish.budget.curve import Curve, Point, bytes_between, envelope
from server.publish.budget.goal import Goal, read_goal
from server.publish.budget.plot import HEIGHT, WIDTH, draw

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"trials": 3},
        {"max_bytes": 0},
        {"max_bytes": -5},
        {"max_bytes": 1.5},
        {"min_accuracy": 100.5},
        {"min_accuracy": -1},
        {"min_accuracy": math.nan},
        {"max_bytes": 1000, "trials": 6},
        {"max_bytes": 1000, "rank": 3},
    ],
)
def test_a_goal_that_cannot_be_meant_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadRefinement) as caught:
        read_goal(options)
    assert caught.value.code == "refinement.bad_goal"
    assert "max_bytes" in caught.value.todo


def point(size: int, accuracy: float, **given: Any) -> Point:
    fields: dict[str, Any] = {"trial": 1, "method": "sparse", "options": {"bytes": size}}
    fields |= {"accuracy_before": 0.7, "epochs": 8, "seconds": 1.0}
    return Point(**fields | {"bytes": size, "accuracy_after": accuracy} | given)


def test_envelope_leaves_out_what_a_smaller_package_reaches() -> None:
    points = [point(3000, 0.8), point(1000, 0.75), point(2000, 0.74), point(1000, 0.73)]
    assert envelope(points) == [(1000, 0.75), (3000, 0.8)]


@given(st.floats(0.0, 1.0))
def test_bytes_between_two_points_lie_on_the_line_in_log_bytes(share: float) -> None:
    found = bytes_between((1000.0, 0.5), (16000.0, 0.9), 0.5 + 0.4 * share)
    assert found == pytest.approx(1000 * 16**share)


def test_a_flat_line_leads_far_but_not_beyond_numbers() -> None:
    assert bytes_between((1000.0, 0.5), (1001.0, 0.5000001), 0.99) > 1e20


POINTS = st.builds(
    point,
    st.integers(1, 1 << 40),
    st.floats(0, 1),
    accuracy_before=st.floats(0, 1),
    fitted=st.booleans(),
    chosen=st.booleans(),
)
CURVES = st.builds(
    Curve,
    goal=st.builds(
        Goal,
        max_bytes=st.none() | st.integers(1, 1 << 40),
        min_accuracy=st.none() | st.floats(0, 100),
    ),
    least_bytes=st.integers(1, 5000),
    points=st.lists(POINTS, max_size=6),
)


@given(CURVES)
def test_plot_is_well_formed_and_all_of_it_lies_inside(curve: Curve) -> None:
    root = ElementTree.fromstring(draw(curve))  # noqa: S314 - our own text
    assert root.tag == f"{SVG}svg"
    for circle in root.iter(f"{SVG}circle"):
        assert 0 < float(circle.attrib["cx"]) < WIDTH
        assert 0 < float(circle.attrib["cy"]) < HEIGHT
    assert len(list(root.iter(f"{SVG}circle"))) == len(curve.points)


def test_plot_brings_neither_scripts_nor_styles_and_quotes_what_it_is_told() -> None:
    text = draw(Curve(goal=Goal(max_bytes=900), least_bytes=400), '<script>&"')
    root = ElementTree.fromstring(text)  # noqa: S314 - our own text
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        *("svg", "title", "rect", "text", "line", "circle", "polyline")
    }
    assert root.findtext(f"{SVG}title") == '<script>&"'
    assert "style" not in text
