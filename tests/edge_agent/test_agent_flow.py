"""The life of updates: an agent in this process, a real HTTP server beside it."""

from __future__ import annotations

import json
import re
import shutil
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from edge_agent import files
from edge_agent.agent.flow import TABLE
from edge_agent.agent.outcomes import BEFORE_SWAPPING, CHANGING, ENDING
from edge_agent.errors import AgentError, ServerAway
from edge_agent.heavy.inline import Inline
from edge_agent.journal import Target, load_journal
from shared.wire import State

MODEL = "digits"
JUDGE = "import os, sys; sys.exit(0 if os.environ['WEFT_DIGEST'].startswith({!r}) else 3)"


def test_first_installation_from_nothing(bench: Any, plane: Any, shelf: Any) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    assert bench.round() == []
    assert bench.in_use() == shelf.digests[1]
    assert bench.leftovers() == set()
    (report,) = plane.reports
    assert (report.counter, report.model, report.assignment, report.version) == (1, MODEL, 1, 1)
    assert (report.result, report.state, report.health) == ("committed", "committed", "unverified")
    assert report.weights_digest == shelf.digests[1]
    assert report.slots == [shelf.digests[1]]
    assert report.capabilities is None  # told at the enrolment, and when they change
    assert plane.enrolments[0].capabilities.methods["xor"] == 1


def test_update_goes_to_the_other_slot_and_keeps_the_old_one(
    bench: Any, plane: Any, shelf: Any
) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1", 1))
    bench.round()
    plane.offer(shelf, shelf.wanted(2, "xor-12", 2))
    assert bench.round() == []
    assert bench.in_use() == shelf.digests[2]
    assert sorted(plane.reports[-1].slots) == sorted([shelf.digests[1], shelf.digests[2]])


def test_going_back_to_a_slot_needs_no_package(bench: Any, plane: Any, shelf: Any) -> None:
    for version, package, assignment in ((1, "full-1", 1), (2, "xor-12", 2)):
        plane.offer(shelf, shelf.wanted(version, package, assignment))
        bench.round()
    plane.requests.clear()
    plane.offer(shelf, shelf.wanted(1, None, 3))
    assert bench.round() == []
    assert bench.in_use() == shelf.digests[1]
    assert plane.asked("/device/v1/packages") == []
    assert (plane.reports[-1].assignment, plane.reports[-1].result) == (3, "committed")


def test_delivered_weights_are_taken_in_and_enrolled(bench: Any, plane: Any, shelf: Any) -> None:
    bench.settings["models"][MODEL]["initial"] = str(shelf.weights[1])
    plane.offer(shelf, shelf.wanted(2, "xor-12"))
    assert bench.round() == []
    (enrolment,) = plane.enrolments
    assert enrolment.models[MODEL].current == shelf.digests[1]
    assert enrolment.name == "lamp-3"
    assert bench.in_use() == shelf.digests[2]


def test_the_token_is_private_and_enrolment_happens_once(
    bench: Any, plane: Any, shelf: Any
) -> None:
    bench.round()
    del bench.settings["enrolment_token"]
    bench.round()
    assert len(plane.enrolments) == 1
    identity = bench.config.state_dir / "identity.json"
    assert stat.S_IMODE(identity.stat().st_mode) == 0o600
    assert plane.asked("/device/v1/desired")[-1]["authorization"] == f"Bearer {plane.token}"


def test_a_token_never_goes_to_another_server(bench: Any, plane: Any, shelf: Any) -> None:
    bench.round()
    identity = bench.config.state_dir / "identity.json"
    held = json.loads(identity.read_text())
    identity.write_text(json.dumps({**held, "server": "https://elsewhere.example"}))
    del bench.settings["enrolment_token"]
    plane.requests.clear()
    with pytest.raises(AgentError, match=r"agent\.not_enrolled"):
        bench.round()
    assert plane.requests == []


def test_an_idle_poll_is_a_304_and_the_server_sets_the_pace(
    bench: Any, plane: Any, shelf: Any
) -> None:
    with bench.running() as agent:
        assert agent.round() == (30.0, [])
        assert agent.round() == (30.0, [])
    assert plane.asked("/device/v1/desired")[-1]["if-none-match"] == '"1"'


def test_a_reported_assignment_for_weights_in_use_is_checked_and_answered(
    bench: Any, plane: Any, shelf: Any
) -> None:
    bench.settings["models"][MODEL]["initial"] = str(shelf.weights[1])
    plane.offer(shelf, shelf.wanted(1, None, assignment=9))
    assert bench.round() == []
    assert [(r.assignment, r.result) for r in plane.reports] == [(9, "committed")]
    bench.round()
    assert len(plane.reports) == 1


def test_a_held_model_is_left_alone(bench: Any, plane: Any, shelf: Any) -> None:
    wanted = shelf.wanted(1, "full-1")
    plane.offer(shelf, wanted.model_copy(update={"held": "maintenance window"}))
    assert bench.round() == []
    assert bench.in_use() is None
    assert plane.reports == []


def test_an_update_that_is_held_on_its_way_keeps_what_it_has(
    bench: Any, plane: Any, shelf: Any
) -> None:
    data = shelf.packages["full-1"].path.read_bytes()
    plane.faults = [lambda h: "/packages/" in h.path and (h.package(data, 700), True)[1]]
    wanted = shelf.wanted(1, "full-1")
    plane.offer(shelf, wanted)
    assert bench.round() == ["server.unreachable"]
    plane.offer(shelf, wanted.model_copy(update={"held": "no package yet", "package": None}))
    asked = len(plane.asked("/device/v1/packages"))
    with bench.running() as agent:
        assert agent.round()[1] == []
        assert len(plane.asked("/device/v1/packages")) == asked
        plane.offer(shelf, wanted)
        assert agent.round()[1] == []
    assert plane.asked("/device/v1/packages")[-1]["range"] == "bytes=700-"
    assert bench.in_use() == shelf.digests[1]


def test_a_package_may_start_from_the_slot_that_it_goes_to(
    bench: Any, plane: Any, shelf: Any
) -> None:
    for version, package in ((1, "full-1"), (2, "xor-12"), (1, None), (3, "xor-23")):
        plane.offer(shelf, shelf.wanted(version, package, plane.generation))
        assert bench.round() == []
        assert bench.in_use() == shelf.digests[version]
    assert sorted(plane.reports[-1].slots) == sorted([shelf.digests[1], shelf.digests[3]])


def test_the_health_check_accepts(bench: Any, plane: Any, shelf: Any) -> None:
    judge = JUDGE.format(shelf.digests[1][:8])
    bench.settings["models"][MODEL]["health_command"] = ["python3", "-c", judge]
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    assert bench.round() == []
    assert plane.reports[-1].health == "passed"


def test_weights_that_fail_the_health_check_are_rolled_back(
    bench: Any, plane: Any, shelf: Any
) -> None:
    bench.settings["models"][MODEL] = {
        "initial": str(shelf.weights[1]),
        "health_command": ["python3", "-c", JUDGE.format("nothing")],
    }
    plane.offer(shelf, shelf.wanted(2, "xor-12"))
    assert bench.round() == ["health.failed"]
    assert bench.in_use() == shelf.digests[1]
    (report,) = plane.reports
    assert (report.result, report.state, report.health) == (
        "failed_rolled_back",
        "rolled_back",
        "failed",
    )
    assert report.error is not None
    assert (report.error.code, report.weights_digest) == ("health.failed", shelf.digests[1])
    assert bench.round() == []  # the same offer is not tried again
    assert len(plane.reports) == 1


def test_a_first_installation_that_fails_leaves_nothing_in_use(
    bench: Any, plane: Any, shelf: Any
) -> None:
    bench.settings["models"][MODEL]["health_command"] = ["/nonexistent/judge"]
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    assert bench.round() == ["health.not_started"]
    assert bench.in_use() is None
    assert plane.reports[-1].weights_digest is None


@pytest.mark.parametrize(
    ("version", "package", "code"),
    [(2, "xor-12", "agent.no_base"), (1, None, "agent.no_such_weights")],
)
def test_what_cannot_be_done_is_reported_once(
    bench: Any, plane: Any, shelf: Any, version: int, package: str | None, code: str
) -> None:
    plane.offer(shelf, shelf.wanted(version, package))
    assert bench.round() == [code]
    assert bench.round() == []
    assert [(r.result, r.error.code) for r in plane.reports] == [("failed_no_change", code)]
    plane.offer(shelf, shelf.wanted(1, "full-1", assignment=2))
    assert bench.round() == []
    assert plane.reports[-1].result == "committed"


def test_a_package_above_the_limit_is_not_downloaded(bench: Any, plane: Any, shelf: Any) -> None:
    bench.settings["max_package_bytes"] = 100
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    assert bench.round() == ["agent.package_too_large"]
    assert plane.asked("/device/v1/packages") == []


def test_without_space_the_update_waits_and_says_so_once(
    bench: Any, plane: Any, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    with monkeypatch.context() as full_disk:
        full_disk.setattr(files, "free_bytes", lambda _directory: 1000)
        assert bench.round() == ["storage.no_space"]
        assert bench.round() == ["storage.no_space"]
    assert [(r.state, r.result) for r in plane.reports] == [("deferred", "failed_no_change")]
    assert plane.asked("/device/v1/packages") == []
    assert bench.round() == []
    assert bench.in_use() == shelf.digests[1]
    assert plane.reports[-1].error is None


def test_a_damaged_slot_is_noticed_and_no_longer_reported(
    bench: Any, plane: Any, shelf: Any
) -> None:
    bench.settings["models"][MODEL]["initial"] = str(shelf.weights[1])
    bench.round()
    slot = bench.folder / "slots" / "a.safetensors"
    data = bytearray(slot.read_bytes())
    data[-1] ^= 1
    slot.write_bytes(bytes(data))
    plane.offer(shelf, shelf.wanted(2, "xor-12", 1))
    assert bench.round() == ["package.wrong_base"]
    assert shelf.digests[1] not in plane.reports[-1].slots
    plane.offer(shelf, shelf.wanted(2, "full-2", 2))
    assert bench.round() == []
    assert bench.in_use() == shelf.digests[2]


def test_a_slot_that_cannot_be_read_is_no_longer_reported(
    bench: Any, plane: Any, shelf: Any
) -> None:
    bench.settings["models"][MODEL]["initial"] = str(shelf.weights[1])
    bench.round()
    (bench.folder / "slots" / "a.safetensors").write_bytes(b"short")
    plane.offer(shelf, shelf.wanted(2, "xor-12", 1))
    assert bench.round() == ["weights.malformed"]
    assert (plane.reports[-1].result, plane.reports[-1].slots) == ("failed_no_change", [])


def test_a_package_that_was_damaged_on_the_disk_is_downloaded_again(
    bench: Any, plane: Any, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    with bench.running() as agent:
        heavy = agent.updates[MODEL].device.heavy

        def rot(packages: Any, base: Path | None) -> Any:
            path = packages[0][0]
            path.write_bytes(path.read_bytes()[:-1] + b"x")
            monkeypatch.undo()
            return heavy.inspect(packages, base)

        monkeypatch.setattr(heavy, "inspect", rot)
        assert [error.code for error in agent.turn()] == ["trust.wrong_hash"]
        while not bench.in_use():
            agent.clock.wait(agent.pause())
            agent.turn()
        assert 30 < agent.clock.now() - time.monotonic() < 300
    assert bench.in_use() == shelf.digests[1]
    assert [r.state for r in plane.reports] == ["deferred", "committed"]
    assert len(plane.asked("/device/v1/packages")) == 2


def test_a_disk_that_damages_every_download_ends_the_update(
    bench: Any, plane: Any, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is downloaded again and again costs traffic, and helps nobody."""
    bench.settings["max_attempts"] = 3
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    inspect = Inline.inspect

    def rot(heavy: Inline, packages: Any, base: Path | None) -> Any:
        path = packages[0][0]
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        return inspect(heavy, packages, base)

    monkeypatch.setattr(Inline, "inspect", rot)
    for _ in range(30):  # a restart does not begin the count anew
        with bench.running() as agent:
            agent.turn()
            agent.clock.wait(agent.pause())
            agent.turn()
    assert [r.state for r in plane.reports] == ["deferred", "failed"]
    assert plane.reports[-1].error.code == "agent.too_many_attempts"
    assert "damaged" in plane.reports[-1].error.message
    assert len(plane.asked("/device/v1/packages")) == 3
    assert (bench.in_use(), bench.leftovers()) == (None, set())


def test_a_lost_journal_is_made_anew_from_the_slots(bench: Any, plane: Any, shelf: Any) -> None:
    for version, package, assignment in ((1, "full-1", 1), (2, "xor-12", 2)):
        plane.offer(shelf, shelf.wanted(version, package, assignment))
        bench.round()
    (bench.folder / "journal.json").write_text("{")
    plane.offer(shelf, shelf.wanted(3, "xor-23", 3))
    assert bench.round() == []
    assert bench.in_use() == shelf.digests[3]


def test_a_journal_of_a_later_agent_is_refused(bench: Any, plane: Any) -> None:
    bench.round()
    (bench.folder / "journal.json").write_text('{"format": 99, "more": []}')
    with pytest.raises(AgentError, match=r"agent\.state_too_new"):
        bench.round()


def test_a_newer_offer_supersedes_one_under_way(bench: Any, plane: Any, shelf: Any) -> None:
    data = shelf.packages["full-1"].path.read_bytes()
    plane.faults = [lambda h: "/packages/" in h.path and (h.package(data, 50), True)[1]]
    plane.offer(shelf, shelf.wanted(1, "full-1", 1))
    assert bench.round() == ["server.unreachable"]
    plane.offer(shelf, shelf.wanted(2, "full-2", 2))
    assert bench.round() == []
    assert bench.in_use() == shelf.digests[2]
    assert [r.assignment for r in plane.reports] == [2]
    assert bench.leftovers() == set()


def test_an_offer_that_is_withdrawn_is_dropped(bench: Any, plane: Any, shelf: Any) -> None:
    plane.faults = [
        lambda h: "/packages/" in h.path and (h.problem(503, "x.y"), True)[1] for _ in range(3)
    ]
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    bench.round()
    plane.offer(shelf, None)
    assert bench.round() == []
    assert (bench.in_use(), plane.reports, bench.leftovers()) == (None, [], set())


def test_one_failing_model_does_not_hold_back_another(bench: Any, plane: Any, shelf: Any) -> None:
    bench.settings["models"] = {"broken": {}, MODEL: {}}
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    plane.models["broken"] = shelf.wanted(2, "xor-12").model_copy(update={"model": "broken"})
    assert bench.round() == ["agent.no_base"]
    assert {r.model: r.result for r in plane.reports} == {
        "broken": "failed_no_change",
        MODEL: "committed",
    }


def test_a_model_that_is_not_configured_is_left_alone(
    bench: Any, plane: Any, shelf: Any, caplog: pytest.LogCaptureFixture
) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1").model_copy(update={"model": "stranger"}))
    assert bench.round() == []
    assert "stranger" in caplog.text
    assert plane.reports == []


def test_what_was_downloaded_is_installed_though_the_server_is_away(
    bench: Any, plane: Any, shelf: Any
) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    bench.round()
    plane.offer(shelf, shelf.wanted(2, "xor-12", 2))
    journal = load_journal(bench.folder / "journal.json")
    assert journal is not None
    package = shelf.packages["xor-12"]
    shutil.copy(package.path, bench.folder / f"package-{package.sha256}.weft")
    ready = journal.model_copy(
        update={
            "state": "downloaded",
            "target": Target.of(shelf.wanted(2, "xor-12", 2)).model_copy(update={"verified": True}),
            "fill": "b",
            "previous": "a",
            "before": journal.slots["a"],
        }
    )
    files.write(bench.folder / "journal.json", ready.model_dump_json().encode())
    plane.faults = [lambda h: (h.problem(503, "x.y"), True)[1] for _ in range(2)]
    with pytest.raises(ServerAway):
        bench.round()
    assert bench.in_use() == shelf.digests[2]
    assert len(plane.reports) == 1
    plane.faults = []
    bench.round()
    assert [r.assignment for r in plane.reports] == [1, 2]


def test_attempts_are_capped(bench: Any, plane: Any, shelf: Any) -> None:
    bench.settings["max_attempts"] = 2
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    wrong = b"x" * shelf.packages["full-1"].size
    plane.files[shelf.packages["full-1"].sha256] = wrong
    assert bench.round() == ["trust.wrong_hash"]
    assert bench.round() == ["trust.wrong_hash"]
    assert bench.round() == ["agent.too_many_attempts"]
    assert bench.round() == []
    assert plane.reports[-1].error.message.endswith(shelf.packages["full-1"].sha256)


def test_only_one_agent_works_in_a_directory(bench: Any, plane: Any) -> None:
    with bench.running(), pytest.raises(AgentError, match="busy"):
        bench.round()


NEXT = {
    "idle": "offered",
    "offered": "downloading staged verifying failed deferred aborted superseded",
    "downloading": "downloaded failed deferred aborted superseded",
    "downloaded": "reconstituting failed deferred aborted superseded",
    "reconstituting": "staged failed deferred aborted superseded",
    "staged": "swapping failed deferred aborted superseded",
    "swapping": "verifying rolled_back",
    "verifying": "committed rolled_back",
    "committed": "idle",
    "rolled_back": "idle",
    "failed": "idle",
    "deferred": "offered failed aborted superseded",
    "aborted": "idle",
    "superseded": "idle",
}


def test_the_table_of_states_is_this_one() -> None:
    assert {state: " ".join(row.next) for state, row in TABLE.items()} == NEXT
    assert [state for state, row in TABLE.items() if row.step is None] == ["idle"]
    assert set(TABLE) == set(State.__args__)
    assert BEFORE_SWAPPING | CHANGING | ENDING | {"idle"} == set(TABLE)
    assert not BEFORE_SWAPPING & CHANGING | BEFORE_SWAPPING & ENDING | CHANGING & ENDING


def test_the_page_says_the_same(checkout: Path) -> None:
    text = (checkout / "docs" / "edge-agent.md").read_text(encoding="utf-8")
    section = text.split("\n## States\n", 1)[1].split("\nFrom `offered`", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", section, re.MULTILINE)
    out = "failed deferred aborted superseded"
    said = {state: " ".join(re.findall(r"`(\w+)`", after)) for state, after in rows}
    assert said == {state: after.removesuffix(f" {out}") for state, after in NEXT.items()}


def test_what_the_table_does_not_allow_is_refused_before_it_is_written(
    bench: Any, plane: Any
) -> None:
    with bench.running() as agent:
        before = (bench.folder / "journal.json").read_bytes()
        with pytest.raises(RuntimeError, match="idle -> swapping"):
            agent.updates[MODEL].enter("swapping")
        assert (bench.folder / "journal.json").read_bytes() == before
        assert agent.updates[MODEL].journal.state == "idle"
