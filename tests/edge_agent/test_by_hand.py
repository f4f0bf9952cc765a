"""What is ordered on the device itself: going back, and what was brought along."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_agent import files
from edge_agent.errors import AgentError
from edge_agent.journal import load_journal

MODEL = "digits"


@pytest.fixture
def at_two(bench: Any, plane: Any, shelf: Any) -> Any:
    """A device that was delivered with version 1 and was brought to version 2."""
    bench.settings["models"][MODEL]["initial"] = str(shelf.weights[1])
    plane.offer(shelf, shelf.wanted(2, "xor-12", assignment=5))
    assert bench.round() == []
    assert bench.in_use() == shelf.digests[2]
    plane.reports.clear()
    return bench


def codes(errors: list[Any]) -> list[str]:
    return [error.code for error in errors]


def go_back(bench: Any) -> list[str]:
    with bench.running() as agent:
        return codes(agent.go_back(MODEL))


def test_going_back_is_reported_as_the_end_of_what_was_left(
    at_two: Any, plane: Any, shelf: Any
) -> None:
    assert go_back(at_two) == []
    assert (at_two.in_use(), at_two.leftovers()) == (shelf.digests[1], set())
    (report,) = plane.reports
    assert (report.assignment, report.version, report.result, report.state) == (
        5,
        2,
        "failed_rolled_back",
        "rolled_back",
    )
    assert report.error.code == "agent.rolled_back_by_hand"
    assert report.weights_digest == shelf.digests[1]
    assert sorted(report.slots) == sorted([shelf.digests[1], shelf.digests[2]])


def test_the_same_offer_is_not_installed_again(at_two: Any, plane: Any, shelf: Any) -> None:
    go_back(at_two)
    for _ in range(2):
        assert at_two.round() == []
    assert at_two.in_use() == shelf.digests[1]
    assert len(plane.reports) == 1


def test_another_attempt_of_it_is_refused_and_a_new_order_obeyed(
    at_two: Any, plane: Any, shelf: Any
) -> None:
    go_back(at_two)
    again = shelf.wanted(2, None, assignment=5).model_copy(update={"attempt": 2})
    plane.offer(shelf, again)
    assert at_two.round() == ["agent.left_by_hand"]
    assert at_two.in_use() == shelf.digests[1]
    assert plane.reports[-1].result == "failed_no_change"
    plane.offer(shelf, shelf.wanted(2, None, assignment=6))
    assert at_two.round() == []
    assert at_two.in_use() == shelf.digests[2]
    assert load_journal(at_two.folder / "journal.json").left is None


def test_the_old_weights_must_pass_the_check_too(at_two: Any, plane: Any, shelf: Any) -> None:
    at_two.settings["models"][MODEL]["health_command"] = ["false"]
    settled = load_journal(at_two.folder / "journal.json").settled
    assert go_back(at_two) == ["health.failed"]
    assert at_two.in_use() == shelf.digests[2]
    (report,) = plane.reports
    assert (report.assignment, report.result, report.health) == (
        None,
        "failed_rolled_back",
        "failed",
    )
    assert load_journal(at_two.folder / "journal.json").settled == settled
    del at_two.settings["models"][MODEL]["health_command"]
    assert at_two.round() == []
    assert (at_two.in_use(), len(plane.reports)) == (shelf.digests[2], 1)


def test_there_is_one_step_back_and_no_other(at_two: Any, plane: Any, shelf: Any) -> None:
    go_back(at_two)
    with pytest.raises(AgentError, match=r"agent\.nothing_to_go_back_to"):
        go_back(at_two)
    assert at_two.in_use() == shelf.digests[1]


def test_weights_that_were_never_accepted_are_nothing_to_go_back_to(
    bench: Any, plane: Any, shelf: Any
) -> None:
    bench.settings["models"][MODEL] = {
        "initial": str(shelf.weights[1]),
        "health_command": ["false"],
    }
    plane.offer(shelf, shelf.wanted(2, "xor-12"))
    assert bench.round() == ["health.failed"]
    assert len(plane.reports[-1].slots) == 2
    with pytest.raises(AgentError, match=r"agent\.nothing_to_go_back_to"):
        go_back(bench)


def test_what_the_server_wants_meanwhile_makes_way_and_comes_after(
    at_two: Any, plane: Any, shelf: Any
) -> None:
    data = shelf.packages["xor-23"].path.read_bytes()
    plane.faults = [lambda h: "/packages/" in h.path and (h.package(data, 50), True)[1]]
    plane.offer(shelf, shelf.wanted(3, "xor-23", assignment=6))
    assert at_two.round() == ["server.unreachable"]
    assert go_back(at_two) == []
    assert (at_two.in_use(), at_two.leftovers()) == (shelf.digests[1], set())
    assert at_two.round() == []
    assert at_two.in_use() == shelf.digests[3]


def test_without_a_server_it_goes_back_and_reports_later(
    at_two: Any, plane: Any, shelf: Any
) -> None:
    address, at_two.settings["server"] = plane.url, "http://127.0.0.1:9"
    at_two.settings["enrolment_token"] = None
    identity = at_two.config.state_dir / "identity.json"
    known = identity.read_text()
    files.write(identity, known.replace(address, "http://127.0.0.1:9").encode())
    assert go_back(at_two) == []
    assert at_two.in_use() == shelf.digests[1]
    at_two.settings["server"] = address
    files.write(identity, known.encode())
    assert at_two.round() == []
    assert [report.assignment for report in plane.reports] == [5]


def test_an_order_that_cannot_be_carried_out_now_is_not_carried_out_later(
    at_two: Any, plane: Any, shelf: Any, tmp_path: Path
) -> None:
    at_two.settings["models"][MODEL]["runtime"] = {
        "kind": "program",
        "socket": str(tmp_path / "nobody"),
    }
    assert go_back(at_two) == ["runtime.away"]
    assert load_journal(at_two.folder / "journal.json").state == "idle"
    del at_two.settings["models"][MODEL]["runtime"]
    assert at_two.round() == []
    assert at_two.in_use() == shelf.digests[2]


def test_one_can_go_back_from_weights_that_were_damaged(
    at_two: Any, plane: Any, shelf: Any
) -> None:
    slot = at_two.folder / "slots" / "b.safetensors"
    slot.write_bytes(slot.read_bytes()[:-4] + b"\0\0\0\0")
    plane.offer(shelf, shelf.wanted(3, "xor-23", assignment=6))
    assert at_two.round() == ["package.wrong_base"]
    assert go_back(at_two) == []
    assert at_two.in_use() == shelf.digests[1]
    assert load_journal(at_two.folder / "journal.json").slots["a"].used


def test_going_back_from_weights_that_nobody_knows_is_reported_too(
    at_two: Any, plane: Any, shelf: Any
) -> None:
    (at_two.folder / "slots" / "b.safetensors").write_bytes(b"short")
    plane.offer(shelf, shelf.wanted(2, None, assignment=6))
    assert at_two.round() == ["agent.no_such_weights"]
    assert go_back(at_two) == []
    report = plane.reports[-1]
    assert (report.assignment, report.result) == (None, "committed")
    assert (report.weights_digest, report.slots) == (shelf.digests[1], [shelf.digests[1]])


def test_the_command(at_two: Any, shelf: Any) -> None:
    command = [sys.executable, "-m", "edge_agent.cli", "rollback", "--json"]
    done = subprocess.run(command, env=at_two.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)["models"][MODEL]
    assert (said["weights_digest"], said["state"]) == (shelf.digests[1], "idle")
    again = subprocess.run(command, env=at_two.environment, capture_output=True, text=True)
    assert again.returncode == 2
    assert json.loads(again.stdout)["error"]["code"] == "agent.nothing_to_go_back_to"


@pytest.mark.parametrize(
    ("models", "named", "code"),
    [
        ({"digits": {}, "faces": {}}, [], "config.missing"),
        ({"digits": {}}, ["faces"], "config.invalid"),
    ],
)
def test_the_model_must_be_clear(
    bench: Any, models: dict[str, Any], named: list[str], code: str
) -> None:
    bench.settings["models"] = models
    command = [sys.executable, "-m", "edge_agent.cli", "rollback", "--json", *named]
    done = subprocess.run(command, env=bench.environment, capture_output=True, text=True)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, code)


def test_what_was_brought_along_is_installed_and_reported(
    at_two: Any, plane: Any, shelf: Any
) -> None:
    built = shelf.packages["xor-23"]
    wanted = shelf.wanted(3, "xor-23", assignment=None)
    with at_two.running() as agent:
        assert (
            agent.install(
                wanted, plane.signed(wanted), lambda _, place: files.copy(built.path, place)
            )
            == []
        )
    assert (at_two.in_use(), at_two.leftovers()) == (shelf.digests[3], set())
    (report,) = plane.reports
    assert (report.assignment, report.version, report.result) == (None, 3, "committed")


def test_what_was_brought_along_is_checked_like_a_download(
    at_two: Any, plane: Any, shelf: Any, tmp_path: Path
) -> None:
    built = shelf.packages["xor-23"]
    damaged = tmp_path / "damaged"
    damaged.write_bytes(built.path.read_bytes()[:-1] + b"x")
    plane.files.clear()
    with at_two.running() as agent:
        wanted = shelf.wanted(3, "xor-23", assignment=None)
        errors = codes(
            agent.install(wanted, plane.signed(wanted), lambda _, place: files.copy(damaged, place))
        )
    assert errors
    assert (at_two.in_use(), at_two.leftovers()) == (shelf.digests[2], set())
