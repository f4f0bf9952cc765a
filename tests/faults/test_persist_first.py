"""Noted before it is done: leaving out one note breaks something, or the reason why it does not.

Each place where the flow enters a state is listed here, so that a new one is thought about.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent import model
from edge_agent.journal import Journal
from edge_agent.report import Outbox
from tests.faults.crashes import crash, points
from tests.faults.recording import PACKAGE, sites_of
from tests.faults.scenes import SCENES
from tests.faults.stage import Broken, Stage

#: Function and state -> the scene in which a crash shows that the note is missing.
NEEDED = {
    ("reconstitute", "reconstituting"): "over an older slot",
    ("stage", "swapping"): "withdrawn in place",
    ("verify", "committed"): "rejected afterwards in place",
    ("_end", "state"): "refused",
}
#: ... -> why the state before it is as good to start from.
HARMLESS = {
    ("plan", "state"): "the slot is found again, by its digest",
    ("plan", "downloading"): "it is planned again",
    ("download", "downloaded"): "what is there is found complete",
    ("admit", "reconstituting"): "the packages are looked at again",
    ("reconstitute", "staged"): "the slot, or the undo file, is made again or found whole",
    ("_apply", "reconstituting"): "the chain is applied again from its beginning",
    ("swap", "verifying"): "to swap again changes nothing",
    ("commit", "committed"): "the slots say what they hold",
    ("_say_what_was_left", "committed"): "it is noted with the report, which is made again",
    ("roll_back", "rolled_back"): "to go back again changes nothing",
    ("look_again", "offered"): "the obstacle is looked at again",
    ("give_up", "aborted"): "nothing was done yet; the order is carried out at the next start",
    ("_make_way", "superseded"): "the server offers it again",
    ("still_holds", "self.journal.state"): "the digest is read again",
    ("_consider", "?"): "the offer is considered again",
    ("begin", "offered"): "the server offers it again",
    ("_moves", "state"): "a count or an error for people; tests of attempts hold the count",
    ("_count_attempt", "journal.state"): "as above",
    ("_defer", "deferred"): "what is in the way is found again",
    ("verify", "verifying"): "the digest is read again",
    ("enter", "state"): "hands on what the others ask for",
}


def entered() -> set[tuple[str, str]]:
    """Function and state of each call of `enter` in the agent."""
    found = set()
    for path in Path(PACKAGE, "agent").glob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    match node:
                        case ast.Call(func=ast.Attribute(attr="enter"), args=[first, *_]):
                            found.add((function.name, _named(first)))
    return found


def _named(state: ast.expr) -> str:
    if isinstance(state, ast.Constant):
        return str(state.value)
    return "?" if isinstance(state, ast.IfExp) else ast.unparse(state)


def test_each_note_is_needed_or_there_is_a_reason() -> None:
    assert not NEEDED.keys() & HARMLESS.keys()
    assert entered() == NEEDED.keys() | HARMLESS.keys()


def breaks(stage: Stage, name: str) -> bool:
    """Whether any crash of the scene leads to what must not be."""
    try:
        played = stage.play(SCENES[name])
        crash(stage, played, points(played.noted), twice=False)
    except (Broken, AssertionError):
        return True
    return False


@pytest.mark.parametrize(("place", "name"), NEEDED.items(), ids=str)
def test_without_this_note_a_crash_goes_wrong(
    stage: Stage, place: tuple[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, state = place
    really: Callable[[Path, Journal], None] = model.persist_journal

    def forget(path: Path, journal: Journal) -> None:
        callers = {site.function for site in sites_of(sys._getframe(1))}
        if function not in callers or state not in (journal.state, "state"):
            really(path, journal)

    monkeypatch.setattr(model, "persist_journal", forget)
    assert breaks(stage, name)


def test_without_the_note_of_a_report_it_is_lost(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = Outbox._persist

    def forget(outbox: Any, counter: int, pending: list[str], told: str | None = None) -> None:
        if pending:
            outbox._state = outbox._state.model_copy(
                update={"counter": counter, "pending": pending}
            )
        else:
            really(outbox, counter, pending, told)

    monkeypatch.setattr(Outbox, "_persist", forget)
    assert breaks(stage, "update")
