"""What programs do about weights that nobody has accepted yet, whatever the framework."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.errors import HealthError, RuntimeRefused
from edge_agent.runtimes import Weights
from edge_agent.runtimes.holder import Holder
from shared.golden import drawn, golden_of, samples_digest
from shared.weights import write_weights
from tests.runtimes.contract import Place
from tests.runtimes.number import Number, digest, tensors

SOON = 0.05  # seconds that a test lets pass for an agent that is silent


@pytest.fixture
def place(place: Place) -> Place:
    """Number 1 is in use, number 2 has been made."""
    place.put("a", tensors(1))
    place.put("b", tensors(2))
    place.use("a")
    place.note("idle")
    return place


@pytest.fixture
def make(place: Place) -> Iterator[Callable[..., Holder[Number]]]:
    made: list[Holder[Number]] = []

    def holder(**settings: Any) -> Holder[Number]:
        number = Number()
        made.append(Holder(number, number, place.directory, **{"hold_seconds": 60} | settings))
        return made[-1]

    yield holder
    for one in made:
        one.close()


def answer(holder: Holder[Number]) -> float:
    with holder.lease(timeout=20) as number:
        return number.value


def is_held(holder: Holder[Number]) -> bool:
    """Whether no answer is given."""
    try:
        with holder.lease(timeout=0):
            return False
    except TimeoutError:
        return True


def swap(holder: Holder[Number], place: Place) -> Weights:
    new = place.held["b"]
    holder.prepare(new)
    place.note("swapping", "a")
    place.use("b")
    holder.swap(new)
    place.note("verifying", "a")
    return new


def refusal(holder: Holder[Number], new: Weights, golden: Any = None) -> str:
    with pytest.raises(HealthError) as raised:
        holder.verify(new, golden)
    assert raised.value.code == "health.failed"
    return raised.value.message


def test_without_a_checker_new_weights_are_used_at_once(make: Any, place: Place) -> None:
    holder = make()
    new = swap(holder, place)
    assert answer(holder) == 2
    verdict = holder.verify(new, None)
    assert (verdict.health, verdict.digest) == ("unverified", new.digest)


def test_with_a_checker_no_answer_is_given_until_they_are_confirmed(
    make: Any, place: Place
) -> None:
    holder = make(check=lambda number: number.value == 2)
    new = swap(holder, place)
    assert is_held(holder)
    verdict = holder.verify(new, None)
    assert (verdict.health, verdict.message) == ("passed", "the check")
    assert is_held(holder)
    holder.confirm(new)
    assert answer(holder) == 2


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (lambda number: False, "the check says: no"),
        (lambda number: "too dark", "the check says: too dark"),
        (lambda number: None, "the check says: no"),
        (lambda number: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_check_that_does_not_accept(make: Any, place: Place, check: Any, said: str) -> None:
    holder = make(check=check)
    assert said in refusal(holder, swap(holder, place))
    assert is_held(holder)
    place.use("a")
    assert holder.revert(place.held["a"]).digest == digest(1)
    assert answer(holder) == 1


def test_silence_after_the_swap_means_going_back(make: Any, place: Place) -> None:
    holder = make(check=lambda number: True, hold_seconds=SOON)
    new = swap(holder, place)
    assert answer(holder) == 1  # waits until it has gone back
    # The agent comes back and goes on where it was.
    assert holder.verify(new, None).digest == new.digest
    holder.confirm(new)
    assert answer(holder) == 2


def test_confirmed_after_it_went_back_it_loads_again(make: Any, place: Place) -> None:
    """The verdict had arrived, and then the agent was killed for a while."""
    holder = make(check=lambda number: True, hold_seconds=SOON)
    new = swap(holder, place)
    assert answer(holder) == 1
    holder.confirm(new)
    assert answer(holder) == 2


def test_silence_of_an_agent_that_has_committed_means_staying(make: Any, place: Place) -> None:
    """Only its word did not arrive."""
    holder = make(check=lambda number: True, hold_seconds=SOON)
    place.use("b")
    place.note("committed", "a")
    holder.swap(place.held["b"])
    assert answer(holder) == 2


def test_a_check_that_ends_after_the_program_went_back_is_not_believed(
    make: Any, place: Place
) -> None:
    begun, end = threading.Event(), threading.Event()

    def check(number: Number) -> bool:
        begun.set()
        return end.wait(20)

    holder = make(check=check)
    new = swap(holder, place)
    said: list[str] = []
    judge = threading.Thread(target=lambda: said.append(refusal(holder, new)))
    judge.start()
    assert begun.wait(20)
    holder.revert(place.held["a"])  # is not kept waiting by the check
    assert answer(holder) == 1
    end.set()
    judge.join(20)
    assert "went back before the check had ended" in said[0]
    assert answer(holder) == 1


def test_a_program_started_during_an_update_takes_what_was_accepted(
    make: Any, place: Place
) -> None:
    for state in ("swapping", "verifying", "rolled_back"):
        place.note(state, "a")
        place.use("b")
        assert answer(make()) == 1
    for state in ("committed", "idle", "staged"):
        place.note(state, "a")
        assert answer(make()) == 2


def test_a_program_started_without_weights_waits_for_some(make: Any, place: Place) -> None:
    (place.directory / "current").unlink()
    holder = make(check=lambda number: True)
    assert holder.digest is None
    assert is_held(holder)
    new = place.held["b"]
    place.note("verifying")
    place.use("b")
    holder.swap(new)
    assert is_held(holder)
    place.note("idle")
    holder.confirm(new)
    assert answer(holder) == 2


def test_it_finds_weights_that_came_while_nobody_told_it(make: Any, place: Place) -> None:
    (place.directory / "current").unlink()
    holder = make()
    seen: list[float] = []
    waiting = threading.Thread(target=lambda: seen.append(answer(holder)))
    waiting.start()
    place.use("b")
    waiting.join(20)
    assert seen == [2]


def test_a_first_installation_that_fails_leaves_nothing_in_use(make: Any, place: Place) -> None:
    (place.directory / "current").unlink()
    holder = make(check=lambda number: False)
    refusal(holder, swap(holder, place))
    (place.directory / "current").unlink()
    assert holder.revert(None).digest is None
    assert is_held(holder)
    assert holder.digest is None


def in_place(place: Place) -> tuple[Weights, Weights, Callable[[float], None]]:
    """Old and new weights of one file, and what changes it as the agent would."""
    new = replace(place.held["a"], digest=digest(2), ready=False)

    def toggle(value: float) -> None:
        write_weights(new.path, {"n": ("F32", np.array([value], np.float32))})

    return place.held["a"], new, toggle


def test_in_place_the_program_goes_back_without_the_file(make: Any, place: Place) -> None:
    old, new, toggle = in_place(place)
    holder = make(check=lambda number: True, hold_seconds=SOON)
    holder.prepare(new)
    place.note("verifying", storage="inplace")
    toggle(2)
    holder.swap(new)
    assert answer(holder) == 1
    toggle(1)
    assert holder.revert(old).digest == digest(1)


def test_in_place_an_update_is_confirmed_or_reverted(make: Any, place: Place) -> None:
    old, new, toggle = in_place(place)
    holder = make(check=lambda number: True)
    for ending, expected in ((holder.revert, 1), (holder.confirm, 2)):
        holder.prepare(new)
        toggle(2)
        holder.swap(new)
        holder.verify(new, None)
        if expected == 1:
            toggle(1)
        ending(old if expected == 1 else new)
        assert answer(holder) == expected


def test_in_place_is_refused_by_a_program_that_uses_the_file(make: Any, place: Place) -> None:
    _, new, _ = in_place(place)
    holder = make()
    holder.model.holds_copy = False
    with pytest.raises(RuntimeRefused):
        holder.prepare(new)


def test_an_error_while_weights_are_taken_over_leaves_none_in_use(make: Any, place: Place) -> None:
    holder = make()
    holder.model.fails = True
    with pytest.raises(MemoryError):
        swap(holder, place)
    assert is_held(holder)
    holder.model.fails = False
    assert holder.revert(place.held["a"]).digest == digest(1)
    assert answer(holder) == 1


def test_an_inference_that_does_not_end_is_no_reason_to_wait_for_ever(
    make: Any, place: Place
) -> None:
    holder = make()
    with holder.lease():
        told: list[BaseException] = []

        def other() -> None:
            try:
                holder.swap(place.held["b"], seconds=0.01)
            except HealthError as error:
                told.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(20)
        assert told
    assert answer(holder) == 1


# Golden samples. `Number` adds 2, so that the label of input x is int(x + 2).


def golden(labels: list[int], agree: int, **source: Any) -> Any:
    given = source or {"seed": 7, "shape": (1,)}
    return golden_of(labels, 10, agree, given)


def test_golden_samples_of_a_seed(make: Any, place: Place) -> None:
    right = [int(row[0] + 2) for row in drawn(7, 8, (1,))]
    assert len(set(right)) == 2  # they tell something
    holder = make(golden=True)
    new = swap(holder, place)
    assert is_held(holder)
    verdict = holder.verify(new, golden(right, 8))
    assert (verdict.health, verdict.message) == ("passed", "8 golden samples")
    wrong = [(label + 1) % 4 for label in right]
    assert "0 of 8 golden samples agree, 7 must" in refusal(holder, new, golden(wrong, 7))
    one_off = [right[0] + 1, *right[1:]]
    assert holder.verify(new, golden(one_off, 7)).health == "passed"
    assert "7 of 8" in refusal(holder, new, golden(one_off, 8))


def test_golden_samples_of_a_file(make: Any, place: Place, tmp_path: Path) -> None:
    inputs = np.arange(6, dtype=np.float32).reshape(6, 1)
    path = tmp_path / "samples.safetensors"
    write_weights(path, {"inputs": ("F32", inputs)})
    source = {"samples": samples_digest(inputs)}
    holder = make(samples=[path])
    new = swap(holder, place)
    assert holder.verify(new, golden([2, 3, 4, 5, 6, 7], 6, **source)).health == "passed"
    assert "0 of 6" in refusal(holder, new, golden([0] * 6, 6, **source))
    unknown = golden([2], 1, samples="ab" * 32)
    assert holder.verify(new, unknown).health == "unverified"


def test_samples_that_cannot_be_run_are_not_passed(make: Any, place: Place) -> None:
    holder = make(golden=True)
    holder.model.labels = lambda inputs: 1 / 0
    assert "division" in refusal(holder, swap(holder, place), golden([1, 2], 1))


def test_without_being_asked_for_they_are_not_run(make: Any, place: Place) -> None:
    holder = make()
    assert holder.verify(swap(holder, place), golden([9, 9], 2)).health == "unverified"
