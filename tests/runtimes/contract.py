"""What every runtime must do: subclassed for each, on real programs.

`Place` is a model's directory as the agent keeps it, filled without the agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge_agent.journal import Held, Journal, SlotName
from edge_agent.runtimes import Runtime, Weights
from shared.tensors import Array
from shared.weights import WeightsReader, write_weights


@dataclass
class Place:
    """`put` writes a slot, `use` turns the link, `note` writes the journal."""

    directory: Path
    held: dict[str, Weights] = field(default_factory=dict)

    def put(self, slot: SlotName, tensors: Mapping[str, Array], version: int = 1) -> Weights:
        path = self.directory / "slots" / f"{slot}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".tmp")
        write_weights(beside, {name: ("F32", array) for name, array in tensors.items()})
        beside.replace(path)
        with WeightsReader(path) as reader:
            self.held[slot] = Weights(path, reader.digest().hex(), version)
        return self.held[slot]

    def use(self, slot: SlotName) -> None:
        beside = self.directory / "next"
        beside.symlink_to(f"slots/{slot}.safetensors")
        beside.replace(self.directory / "current")

    def note(self, state: str, previous: SlotName | None = None, **more: Any) -> None:
        slots = {name: Held(digest=w.digest, version=w.version) for name, w in self.held.items()}
        journal = Journal.model_validate(
            {"state": state, "previous": previous, "slots": slots, **more}
        )
        beside = self.directory / "journal.tmp"
        beside.write_text(journal.model_dump_json())
        beside.replace(self.directory / "journal.json")


class RuntimeTests:
    """Subclasses give `place` (slot a in use, slot b with new weights) and `runtime`."""

    #: Whether the program says what it holds.
    knows_digest = True

    @pytest.fixture
    def runtime(self, place: Place) -> Runtime:
        raise NotImplementedError

    def uses(self, place: Place) -> str:
        """The digest of what the program would answer with now."""
        raise NotImplementedError

    def judged(self, runtime: Runtime, weights: Weights) -> None:
        verdict = runtime.verify(weights, None)
        assert verdict.digest == (weights.digest if self.knows_digest else None)

    def test_an_update_that_is_confirmed(self, place: Place, runtime: Runtime) -> None:
        new = place.held["b"]
        runtime.prepare(new)
        assert self.uses(place) == place.held["a"].digest
        place.use("b")
        runtime.swap(new)
        self.judged(runtime, new)
        runtime.confirm(new)
        assert self.uses(place) == new.digest

    def test_an_update_that_is_reverted(self, place: Place, runtime: Runtime) -> None:
        old, new = place.held["a"], place.held["b"]
        runtime.prepare(new)
        place.use("b")
        runtime.swap(new)
        place.use("a")
        assert runtime.revert(old).digest == (old.digest if self.knows_digest else None)
        assert self.uses(place) == old.digest

    def test_every_call_may_be_repeated(self, place: Place, runtime: Runtime) -> None:
        """The agent does so after a crash, of itself or of the program."""
        old, new = place.held["a"], place.held["b"]
        for _ in range(2):
            for _ in range(2):
                runtime.prepare(new)
            place.use("b")
            for _ in range(2):
                runtime.swap(new)
            for _ in range(2):
                self.judged(runtime, new)
            for _ in range(2):
                runtime.confirm(new)
            assert self.uses(place) == new.digest
            place.use("a")
            for _ in range(2):
                runtime.revert(old)
            assert self.uses(place) == old.digest

    def test_calls_may_be_left_out_before_the_last(self, place: Place, runtime: Runtime) -> None:
        """A program that was restarted has not heard of what went before."""
        old, new = place.held["a"], place.held["b"]
        place.use("b")
        self.judged(runtime, new)
        runtime.confirm(new)
        assert self.uses(place) == new.digest
        place.use("a")
        runtime.revert(old)
        place.use("b")
        runtime.confirm(new)
        assert self.uses(place) == new.digest

    def test_what_is_in_use_already_may_be_installed_again(
        self, place: Place, runtime: Runtime
    ) -> None:
        held = place.held["a"]
        runtime.prepare(held)
        runtime.swap(held)
        self.judged(runtime, held)
        runtime.confirm(held)
        assert self.uses(place) == held.digest

    def test_going_back_from_nothing_under_way_changes_nothing(
        self, place: Place, runtime: Runtime
    ) -> None:
        runtime.revert(place.held["a"])
        assert self.uses(place) == place.held["a"].digest


def digest_of(path: Path) -> str:
    with WeightsReader(path) as reader:
        return reader.digest().hex()
