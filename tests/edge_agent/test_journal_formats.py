"""Journals of older agents, as those left them: they are read, and their updates go on.

`format_1/<state>` is the folder of a model as the agent of format 1 left it when it was killed in
that state, on the way from version 1 to 2 of assignment 5 (`idle`: behind it).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edge_agent.journal import load_journal
from shared.wire import DesiredModel

HERE = Path(__file__).parent / "format_1"
STATES = ("idle", "downloaded", "swapping", "deferred")


@pytest.fixture
def left(bench: Any, plane: Any) -> Any:
    """Puts a folder of format 1 in its place, and has the server still want the same."""

    def put(state: str) -> dict[str, Any]:
        shutil.copytree(HERE / state, bench.folder, symlinks=True)
        old: dict[str, Any] = json.loads((bench.folder / "journal.json").read_bytes())
        wanted = DesiredModel.model_validate(old["target"] or old["settled"])
        plane.models = {wanted.model: wanted}
        (package,) = HERE.glob("downloaded/package-*")
        plane.files = {wanted.packages[0].sha256: package.read_bytes()}
        return old

    return put


@pytest.mark.parametrize("state", STATES)
def test_nothing_that_was_noted_is_lost(left: Any, bench: Any, state: str) -> None:
    old = left(state)
    journal = load_journal(bench.folder / "journal.json")
    assert journal is not None
    assert journal.state == state == old["state"]
    target, before = journal.target or journal.settled, old["target"] or old["settled"]
    assert target is not None
    assert (target.assignment, target.version, target.origin) == (5, 2, "server")
    assert target.weights_digest == before["weights_digest"]
    assert [offer.model_dump() for offer in target.packages] == [before["package"]]
    assert {n: held.digest for n, held in journal.slots.items()} == {
        name: held["digest"] for name, held in old["slots"].items()
    }
    kept = ("fill", "previous", "attempts", "received", "applied", "started_at", "health")
    assert {name: getattr(journal, name) for name in kept} == {name: old[name] for name in kept}
    if journal.previous:
        assert journal.before == journal.slots[journal.previous]


@pytest.mark.parametrize("state", STATES)
def test_the_update_goes_on(left: Any, bench: Any, plane: Any, state: str) -> None:
    old = left(state)
    wanted = (old["target"] or old["settled"])["weights_digest"]
    assert bench.round() == []
    assert (bench.in_use(), bench.leftovers()) == (wanted, set())
    reported = [] if state == "idle" else [(1, 5, "committed")]
    assert [(r.counter, r.assignment, r.result) for r in plane.reports if r.assignment] == reported
    assert json.loads((bench.folder / "journal.json").read_bytes())["format"] in (1, 2)


def test_it_can_be_gone_back_by_hand_from_what_an_older_agent_installed(
    left: Any, bench: Any, plane: Any
) -> None:
    old = left("idle")
    delivered = old["slots"]["a"]["digest"]
    with bench.running() as agent:
        assert agent.go_back("digits") == []
    assert bench.in_use() == delivered
    assert plane.reports[-1].assignment == 5
    assert bench.round() == []
    assert bench.in_use() == delivered


def test_a_swap_of_an_older_agent_is_rolled_back_to_what_was_in_use(left: Any, bench: Any) -> None:
    old = left("swapping")
    bench.settings["models"]["digits"]["health_command"] = ["false"]
    assert bench.round() == ["health.failed"]
    assert bench.in_use() == old["slots"]["a"]["digest"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "{}",
        '{"format": 0}',
        '{"format": [2]}',
        '{"format": 2, "state": "?"}',
        '{"format": 1, "settled": null, "slots": null}',
        '{"format": 1, "settled": 7, "slots": {}}',
    ],
)
def test_what_is_no_journal_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "journal.json"
    path.write_text(text)
    assert load_journal(path) is None
