"""What must stay: nothing that a device may still need ever goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.publish.needs import Edge, Needed, Standing, needed

NONE: frozenset[int] = frozenset()


def standing(*edges: tuple[int, int | None, int], **more: frozenset[int]) -> Standing:
    parts = dict.fromkeys(("newest", "held", "targets", "starts", "open_packages"), NONE)
    return Standing([Edge(*edge) for edge in edges], **(parts | more))


def test_nothing_is_needed_of_nothing() -> None:
    assert needed(standing()) == Needed(NONE, NONE)


def test_every_way_from_what_is_held_to_a_target_stays() -> None:
    edges = [(1, 1, 2), (2, 2, 3), (3, 1, 3), (4, None, 3), (5, 9, 2), (6, 3, 4)]
    found = needed(standing(*edges, held=frozenset({1}), targets=frozenset({3})))
    assert found.packages == {1, 2, 3, 4}
    assert found.versions == {1, 2, 3}


def test_a_full_package_begins_a_way() -> None:
    found = needed(standing((1, None, 2), (2, 2, 3), targets=frozenset({3})))
    assert found.packages == {1, 2}


def test_a_circle_ends() -> None:
    edges = [(1, 1, 2), (2, 2, 1), (3, 2, 3)]
    found = needed(standing(*edges, held=frozenset({1}), targets=frozenset({3})))
    assert found.packages == {1, 2, 3}


def test_open_packages_the_newest_and_their_ends_stay() -> None:
    edges = [(1, 1, 2), (2, 3, 4), (3, 5, 6)]
    found = needed(standing(*edges, open_packages=frozenset({1}), newest=frozenset({4})))
    assert found.packages == {1, 2}
    assert found.versions == {1, 2, 3, 4}


IDS = st.integers(1, 6)
SETS = st.frozensets(IDS, max_size=3)


@given(
    st.lists(st.tuples(st.none() | IDS, IDS), max_size=12),
    st.fixed_dictionaries(
        dict.fromkeys(("newest", "held", "targets", "starts", "open_packages"), SETS)
    ),
)
def test_no_way_is_ever_cut(ends: list[tuple[int | None, int]], parts: dict) -> None:
    """Whatever a device that holds something could reach before, it reaches with what stays."""
    edges = [Edge(number, *end) for number, end in enumerate(ends, 1)]
    whole = Standing(edges, **parts)
    found = needed(whole)
    left = [edge for edge in edges if edge.package in found.packages]
    for start in (None, *whole.held):
        assert reached(start, edges) & whole.targets == reached(start, left) & whole.targets
    for edge in left:
        assert {edge.base, edge.target} - {None} <= found.versions
    assert whole.held | whole.newest | whole.targets | whole.starts <= found.versions


def reached(start: int | None, edges: list[Edge]) -> set[int | None]:
    found: set[int | None] = {start, None}
    while more := {e.target for e in edges if e.base in found} - found:
        found |= more
    return found
