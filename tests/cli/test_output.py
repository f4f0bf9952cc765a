"""What people see: whole values in a record, short ones in a table."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest

from server.cli.history import _told
from server.cli.output import say, show_record, show_table

DIGEST = "0123456789abcdef" * 4
ROW = {
    "digest": DIGEST,
    "at": "2026-03-01T10:00:00.123456Z",
    "error": {"code": "storage.no_space", "message": "the update needs 7 bytes"},
    "data": {"rank": 3, "sha256": DIGEST},
    "none": None,
}


@pytest.mark.parametrize(
    "words", [["rollots"], ["rollouts", "show"], ["rollouts", "show", "x"], ["rollouts", "--foo"]]
)
def test_a_wrong_command_line_is_told_in_json_too(weft: Any, words: list[str]) -> None:
    done = weft(*words, "--json")
    assert (done.status, done.code, done.out) == (1, "command.invalid", "")
    assert weft(*words).status == 1


def test_a_table_is_brief(capsys: pytest.CaptureFixture[str]) -> None:
    show_table([ROW], tuple(ROW))
    words = capsys.readouterr().out.splitlines()[1].split()
    short = DIGEST[:16]
    assert words == [
        *(short, "2026-03-01", "10:00:00Z", "storage.no_space"),
        *("rank=3,", f"sha256={short}", "-"),
    ]


def test_lines_of_a_table_end_where_their_words_end(capsys: pytest.CaptureFixture[str]) -> None:
    show_table([{"a": "x" * 200}, {"a": "y"}], ("a",))
    assert capsys.readouterr().out.splitlines() == ["a", "x" * 200, "y"]


def test_a_line_is_never_broken(capsys: pytest.CaptureFixture[str]) -> None:
    say("more: --cursor " + "x" * 300)
    assert capsys.readouterr().err == "more: --cursor " + "x" * 300 + "\n"


def test_a_record_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    show_record({"digest": DIGEST, "at": ROW["at"]}, as_json=False)
    assert capsys.readouterr().out == f"digest  {DIGEST}\nat      {ROW['at']}\n"


def test_an_event_names_what_it_is_about() -> None:
    names = {"model_id": 2, "model": "digits", "version_id": None, "version": None}
    event = {"id": 1, "device_id": None, "data": {"method": "ka"}, **names}
    assert _told(event)["about"] == {"model": "digits", "method": "ka"}


def test_phases_are_counted_from_1_for_people() -> None:
    event = {"rollout_id": 3, "data": {"phase": 0}, "model": None, "version": None}
    assert _told(event)["about"] == {"rollout": 3, "phase": 1}
    assert event["data"] == {"phase": 0}


def test_the_version_is_told(weft: Any) -> None:
    assert weft("--version").out == f"weft {version('weft')}\n"
