"""The table of states."""

from __future__ import annotations

import pytest

from server.rollouts.states import FINAL, OF_DEVICES, OPEN, PATH, may_follow, state_after
from shared.wire import State


def test_the_states_are_those_of_the_wire():
    assert set(State.__args__) == OF_DEVICES
    assert OF_DEVICES | {"waiting", "timed_out", "unreached"} == FINAL | OPEN


@pytest.mark.parametrize("before", sorted(FINAL))
def test_nothing_follows_an_end_but_going_back_by_hand(before):
    following = {after for after in FINAL | OPEN if may_follow(before, after)}
    assert following == ({"rolled_back"} if before == "committed" else set())


def test_the_path_goes_forward_only():
    for i, before in enumerate(PATH):
        assert [may_follow(before, after) for after in PATH] == [j >= i for j in range(len(PATH))]


@pytest.mark.parametrize("after", ["aborted", "superseded", "deferred"])
def test_the_server_takes_back_only_before_the_swap(after):
    assert may_follow("staged", after)
    assert not may_follow("swapping", after)
    assert not may_follow("verifying", after)


def test_a_deferred_update_goes_on_anywhere():
    assert all(may_follow("deferred", after) for after in (*PATH, "committed", "failed"))


@pytest.mark.parametrize(
    ("result", "said", "holds_target", "state"),
    [
        ("committed", "committed", True, "committed"),
        ("committed", "committed", False, "failed"),
        ("failed_no_change", "failed", False, "failed"),
        ("failed_no_change", "deferred", False, "deferred"),
        ("failed_rolled_back", "rolled_back", False, "rolled_back"),
        ("failed_unrecovered", "failed", False, "failed"),
    ],
)
def test_only_the_right_weights_are_a_success(result, said, holds_target, state):
    assert state_after(result, said, holds_target) == state
