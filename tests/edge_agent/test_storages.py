"""The contract of `edge_agent/slots/base.py`, held against each mode: all of it may come twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_agent import trust
from edge_agent.heavy.inline import Inline
from edge_agent.journal import Held, Journal, Target
from edge_agent.slots import STORAGES, Storage


@pytest.fixture(params=sorted(STORAGES))
def storage(request: pytest.FixtureRequest, tmp_path: Path, shelf: Any) -> Storage:
    """A model's directory with version 1 in use."""
    made = STORAGES[request.param](tmp_path / "model", Inline())
    made.prepare()
    made.adopt(shelf.weights[1])
    return made


def made(storage: Storage, shelf: Any, name: str = "xor-12", version: int = 2) -> Journal:
    """The target is made, twice; returns the journal as the flow has it in `staged`."""
    target = Target.of(shelf.wanted(version, name))
    current, fill = storage.current(), storage.fill()
    before = Held(digest=storage.digest(current)) if current else None
    journal = Journal(
        state="staged",
        storage=storage.mode,
        target=target,
        fill=fill,
        previous=current,
        before=before,
    )
    source = storage.path(current) if current and target.packages[0].base_digest else None
    for _ in range(2):
        package, promise = shelf.packages[name].path, trust.promises(target)[0]
        storage.make(journal, package, promise, source)
    return journal


def in_use(storage: Storage) -> str | None:
    current = storage.current()
    return storage.digest(current) if current else None


def names(storage: Storage) -> set[str]:
    return {path.name for path in storage.directory.rglob("*") if not path.is_dir()}


def test_what_is_in_use_is_not_touched_while_new_weights_are_made(
    storage: Storage, shelf: Any
) -> None:
    before = storage.link.read_bytes()
    made(storage, shelf)
    assert storage.link.read_bytes() == before


def test_the_new_weights_come_into_use_and_stay(storage: Storage, shelf: Any) -> None:
    journal = made(storage, shelf)
    for _ in range(2):
        storage.switch(journal)
        assert in_use(storage) == shelf.digests[2]
    for _ in range(2):
        storage.keep(journal)
        storage.tidy()
    assert in_use(storage) == shelf.digests[2]
    slots = {"a.safetensors", "b.safetensors"} if storage.keeps_previous else {"a.safetensors"}
    assert names(storage) == {"current", *slots}


def test_they_are_undone_to_the_byte(storage: Storage, shelf: Any) -> None:
    before = storage.link.read_bytes()
    journal = made(storage, shelf)
    storage.switch(journal)
    for _ in range(2):
        assert storage.go_back(journal)
        assert storage.link.read_bytes() == before
    storage.tidy()
    assert storage.go_back(journal)  # as after a crash in the middle of tidying up
    assert in_use(storage) == shelf.digests[1]


def test_a_switch_that_was_not_made_can_be_undone(storage: Storage, shelf: Any) -> None:
    journal = made(storage, shelf)
    assert storage.go_back(journal)
    assert in_use(storage) == shelf.digests[1]


def test_the_first_weights_are_undone_to_nothing(storage: Storage, shelf: Any) -> None:
    storage.link.unlink()
    storage.path("a").unlink()
    journal = made(storage, shelf, "full-2")
    storage.switch(journal)
    assert in_use(storage) == shelf.digests[2]
    assert storage.go_back(journal)
    assert storage.current() is None


def test_old_weights_that_are_not_whole_are_said_to_be_so(storage: Storage, shelf: Any) -> None:
    journal = made(storage, shelf)
    storage.switch(journal)
    slot = storage.path(journal.previous or "a")
    slot.write_bytes(slot.read_bytes()[:-30] + bytes(30))
    assert not storage.go_back(journal)


def test_what_it_needs_is_little_where_it_writes_over_the_old(storage: Storage, shelf: Any) -> None:
    large = 1 << 40
    needed = storage.needed([large], storage.fill(), "a")
    assert (needed >= large) == storage.keeps_previous


def test_weights_in_the_other_slot_are_undone_too(storage: Storage, shelf: Any) -> None:
    """They are there in mode `inplace` as well, where it was `ab` before."""
    storage.path("b").write_bytes(shelf.weights[2].read_bytes())
    before = Held(digest=shelf.digests[1])
    journal = Journal(state="swapping", fill="b", previous="a", before=before)
    storage.switch(journal)
    assert in_use(storage) == shelf.digests[2]
    for _ in range(2):
        assert storage.go_back(journal)
        assert in_use(storage) == shelf.digests[1]


def test_only_delivered_weights_are_taken_for_them(storage: Storage, shelf: Any) -> None:
    """The link is gone, and what lies in the slot came from somewhere else."""
    storage.link.unlink()
    storage.adopt(shelf.weights[2])
    assert storage.current() is None
    storage.adopt(shelf.weights[1])  # as after a crash between the copy and the link
    assert in_use(storage) == shelf.digests[1]
