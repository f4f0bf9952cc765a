"""What a device believes over the years: roots, clocks, what expires, what the disk damages."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from edge_agent import files
from edge_agent.agent import releases
from edge_agent.agent.loop import Agent
from edge_agent.agent.showing import in_a_line
from edge_agent.errors import TrustError
from edge_agent.heavy.inline import Inline
from edge_agent.journal import load_journal
from edge_agent.trust.store import MADE_AT, Store
from shared.errors import BadConfig
from shared.metadata import PACKAGES, ROLES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from tests.edge_agent.plane import MODEL
from tests.edge_agent.trusting import DAY, METADATA, Field
from tests.signing import Repository, Roots, just_now, signer

LIVE = (PACKAGES, SNAPSHOT, TIMESTAMP)


@pytest.fixture
def field(bench: Any, plane: Any, shelf: Any) -> Field:
    return Field(bench, plane, shelf)


# Requests.


def test_an_update_asks_once_and_an_idle_device_never(field: Field) -> None:
    field.want(2, "xor-12")
    assert field.round() == []
    assert field.asked() == 1
    for _ in range(3):
        assert field.round() == []
    assert field.asked() == 1


def test_a_device_that_lacks_nothing_is_told_so(field: Field) -> None:
    field.want(2, "xor-12")
    held = {path: path.stat().st_mtime_ns for path in _signed(field).values()}
    assert field.round() == []
    assert field.bench.in_use() == field.shelf.digests[2]
    assert held == {path: path.stat().st_mtime_ns for path in _signed(field).values()}


def test_only_what_has_changed_is_written(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    real = files.write
    monkeypatch.setattr(
        files, "write", lambda path, *a: (written.append(path.name), real(path, *a))
    )
    field.repository.publish(PACKAGES)
    field.want(2, "xor-12")
    assert field.round() == []
    signed = [name for name in written if name.removesuffix(".json") in ROLES]
    assert signed == ["timestamp.json", "snapshot.json", "packages.json"]


def test_the_client_writes_nothing_but_by_files(field: Field, tmp_path: Path) -> None:
    """ngclient keeps files of its own, unless it is overridden; then nothing of it is left."""
    empty = tmp_path / "empty"
    empty.mkdir()
    before = Path.cwd()
    os.chdir(empty)
    try:
        field.repository.publish(TARGETS)
        field.want(2, "xor-12")
        assert field.round() == []
    finally:
        os.chdir(before)
    assert list(empty.iterdir()) == []
    state = field.bench.config.state_dir
    assert {path.name for path in (state / "trust").iterdir()} == {"pinned", "root.json"}
    assert {path.name for path in (field.bench.folder / "trust").iterdir()} == {
        f"{role}.json" for role in ROLES if role != ROOT
    }


def _signed(field: Field) -> dict[str, Path]:
    store = Store.of(field.bench.config.state_dir, MODEL)
    return {role: store.path(role) for role in ROLES}


# Damage.


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_bytes(path.read_bytes().replace(b'"sig":"', b'"sig":"00', 1)),
        lambda path: path.write_bytes(
            path.read_bytes().replace(b'"expires":"2', b'"expires":"3', 1)
        ),
        lambda path: path.write_bytes(b'{"signed":{"version":7,"expires":"2999-01-01T00:00:00Z"}}'),
    ],
    ids=["lost", "empty", "cut", "signature", "expiry", "other"],
)
def test_metadata_that_the_disk_has_damaged_are_asked_for_again(
    field: Field, role: str, damage: Callable[[Path], None]
) -> None:
    damage(_signed(field)[role])
    field.want(2, "xor-12")
    assert field.round() == []
    assert field.bench.in_use() == field.shelf.digests[2]
    assert field.asked() <= 2


def test_without_both_roots_the_token_says_whom_to_believe(field: Field) -> None:
    for name in ("root.json", "pinned"):
        (field.bench.config.state_dir / "trust" / name).write_bytes(b"damaged")
    field.want(2, "xor-12")
    assert field.round() == []
    assert field.bench.in_use() == field.shelf.digests[2]


# Roots.


def test_a_device_that_was_away_for_years_follows_the_chain_of_roots(field: Field) -> None:
    """Each root is expired but the last, and no key is what it was."""
    roots, repository = field.plane.roots, field.repository
    for number in range(1, 7):
        roots.now = just_now() - timedelta(days=731 if number < 6 else 0)
        roots.rotate(ROOT, f"root {number}")
        for role in (TARGETS, SNAPSHOT, TIMESTAMP):
            roots.rotate(role, f"{role} {number}")
    repository.publish(TARGETS, PACKAGES)
    field.want(2, "xor-12")
    assert field.round() == []
    assert field.bench.in_use() == field.shelf.digests[2]
    assert Store.of(field.bench.config.state_dir, MODEL).versions()[ROOT] == len(roots.files) == 25
    assert field.asked() == 1


def test_a_threshold_of_root_keys_must_sign_the_next_root(field: Field) -> None:
    roots = field.plane.roots
    roots.thresholds[ROOT] = 2
    roots.rotate(ROOT, "one", "other")
    field.repository.publish(TARGETS)
    field.want(2, "xor-12")
    assert field.round() == []
    roots.signers = roots.keys[ROOT][:1]
    roots.rotate(ROOT, "one", "third")
    before = field.state()
    field.want(3, "xor-23")
    assert field.round() == ["trust.unsigned"]
    assert field.state() == before


def test_versions_that_a_thief_has_run_ahead_with_end_with_the_keys(field: Field) -> None:
    """A timestamp of version 10^11, issued in 2999, is forgotten once its key is replaced."""
    repository, honest = field.repository, field.repository.now
    repository.now = honest + timedelta(days=10**5)
    repository.publish(TARGETS, PACKAGES)
    field.want(2, "xor-12")
    assert field.round() == ["trust.expired"]  # the root has, by then
    repository.now = honest
    repository.files.clear()
    field.plane.roots.rotate(TIMESTAMP, "fresh")
    field.plane.roots.rotate(SNAPSHOT, "fresher")
    repository.publish(TARGETS, PACKAGES)
    with field.bench.running() as agent:
        agent.clock.wait(DAY / 24)
        assert field.on(agent) == []
    assert field.bench.in_use() == field.shelf.digests[2]


def test_another_server_is_not_believed_at_the_enrolment(
    bench: Any, plane: Any, shelf: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bench.settings["enrolment_token"] = Roots(now=just_now() - timedelta(1)).token(plane.secret)
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    with pytest.raises(TrustError, match=r"trust\.wrong_root"):
        bench.round()
    state = bench.config.state_dir
    assert not (state / "identity.json").exists()
    assert not list((state / "trust").iterdir())
    assert (bench.in_use(), plane.reports, plane.asked(METADATA)) == (None, [], [])
    assert "trust.wrong_root" in caplog.text


def test_a_device_that_knows_its_server_believes_no_other_at_a_new_enrolment(field: Field) -> None:
    (field.bench.config.state_dir / "identity.json").unlink()
    right = field.plane.roots
    field.plane.roots = Roots(now=right.now - timedelta(1))
    with pytest.raises(TrustError, match="do not begin with"):
        field.round()
    field.plane.roots = right
    assert field.round() == []


def test_without_a_root_there_is_no_agent(bench: Any, plane: Any) -> None:
    for token in (None, plane.secret):
        bench.settings["enrolment_token"] = token
        with pytest.raises(BadConfig, match="whose metadata are to be believed"):
            bench.round()
    assert plane.requests == []


def test_the_root_may_be_a_file(bench: Any, plane: Any, shelf: Any, tmp_path: Path) -> None:
    root = tmp_path / "1.root.json"
    root.write_bytes(plane.roots.files[0])
    bench.settings |= {"enrolment_token": plane.secret, "root": str(root)}
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    assert bench.round() == []
    root.unlink()
    bench.settings["root"] = ""
    assert bench.round() == []
    bench.settings["root"] = str(root)
    with pytest.raises(BadConfig, match="no file of root metadata"):
        bench.round()


def test_another_root_in_the_configuration_is_a_new_beginning(field: Field) -> None:
    """The operator has lost the root keys, or moves the device to another server."""
    plane = field.plane
    plane.roots = Roots(keys={role: [signer(f"new {role}")] for role in plane.roots.keys})
    later = just_now() + timedelta(hours=1)
    plane.repositories = {MODEL: Repository(MODEL, plane.roots, now=later)}
    plane.sign(field.shelf)
    before = field.state()
    field.want(2, "xor-12")
    assert field.round() == ["trust.unsigned"]
    assert field.state() == before
    field.bench.settings["enrolment_token"] = plane.enrolment_token
    assert field.round() == []
    assert field.bench.in_use() == field.shelf.digests[2]


# Clocks.


class Set:
    """A clock that somebody has set, or nobody."""

    def __init__(self, agent: Agent, at: float) -> None:
        agent.clock.local = lambda: _local(at)  # type: ignore[method-assign]


def _local(at: float) -> Any:
    from datetime import datetime, timezone

    return datetime.fromtimestamp(at, timezone.utc)


def test_a_device_without_a_clock_is_updated(field: Field) -> None:
    field.want(2, "xor-12")
    with field.bench.running() as agent:
        Set(agent, 0.0)
        assert field.on(agent) == []
    assert field.bench.in_use() == field.shelf.digests[2]


def test_a_device_without_a_clock_believes_what_time_it_was(field: Field) -> None:
    """It has seen metadata of a later day, if only of another model: these here are too old."""
    late = Repository("faces", field.plane.roots, now=field.repository.now + timedelta(days=20))
    state = field.bench.config.state_dir
    other = Store.of(state, "faces")
    other.prepare()
    now = late.now.timestamp()
    Inline().verify_metadata(state, "faces", late.answer(other.versions()), None, now)
    before = field.state()
    field.want(2, "xor-12")
    with field.bench.running() as agent:
        Set(agent, 0.0)
        assert field.on(agent) == ["trust.expired"]
    assert field.state() == before


def test_a_clock_that_is_ahead_stops_updates_and_takes_nothing(field: Field) -> None:
    before = field.state()
    field.want(2, "xor-12")
    with field.bench.running() as agent:
        Set(agent, field.repository.now.timestamp() + 3650 * DAY)
        assert field.on(agent) == ["trust.expired"]
    assert field.state() == before
    assert "expired" in field.plane.reports[-1].error.message


def test_the_time_at_which_the_agent_was_made_is_past() -> None:
    assert just_now().timestamp() > MADE_AT


# What expires.


def test_expiry_takes_nothing_that_is_installed(field: Field) -> None:
    field.want(2, "xor-12")
    assert field.round() == []
    before = field.state()
    with field.bench.running() as agent:
        agent.clock.wait(1000 * DAY)
        assert field.on(agent) == []
        assert field.state() == before
        assert agent.updates[MODEL].releases.have_expired
        assert agent.go_back(MODEL) == []  # by hand, without the server
    assert field.bench.in_use() == field.shelf.digests[1]


def test_an_idle_device_looks_for_newer_metadata_when_those_here_expire(
    field: Field, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with field.bench.running() as agent:
        agent.turn()
        agent.clock.wait(13 * DAY)
        agent.turn()
        assert field.asked() == 0
        agent.clock.wait(2 * DAY)
        field.repository.now += timedelta(days=15)
        field.repository.publish(*LIVE)
        agent.turn()
        assert field.asked() == 1
        assert "the metadata are renewed" in caplog.text
        assert not agent.updates[MODEL].releases.have_expired
        agent.clock.wait(10 * DAY)
        agent.turn()
        assert field.asked() == 1


def test_who_is_kept_from_newer_metadata_says_so_and_asks_seldom(
    field: Field, caplog: pytest.LogCaptureFixture
) -> None:
    with field.bench.running() as agent:
        agent.turn()
        agent.clock.wait(15 * DAY)
        agent.turn()
        assert field.asked() == 1
        assert "the metadata have expired at" in caplog.text
        assert "its metadata have expired" in in_a_line(agent)
        agent.turn()
        for _ in range(200):
            agent.clock.wait(DAY / 96)
            agent.turn()
        assert 4 <= field.asked() <= 10
        for _ in range(20):
            agent.clock.wait(DAY)
            agent.turn()
        assert field.asked() <= 30
    assert field.plane.reports == []
    assert releases.LONGEST_LOOK_SECONDS == DAY


def test_the_status_says_when_metadata_expire(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    expires = (field.repository.now + timedelta(days=14)).isoformat().replace("+00:00", "Z")
    assert (field.shown()["metadata_expire_at"], field.shown()["metadata_expired"]) == (
        expires,
        False,
    )
    late = field.repository.now.timestamp() + 15 * DAY
    monkeypatch.setattr("edge_agent.agent.status.time.time", lambda: late)
    assert field.shown()["metadata_expired"] is True


# By hand.


def test_one_does_not_go_back_to_a_version_that_was_withdrawn(field: Field) -> None:
    field.want(2, "xor-12")
    assert field.round() == []
    field.repository.withdraw(1)
    field.want(3, "xor-23")
    field.plane.faults = [lambda h: "/packages/" in h.path and (h.problem(503, "x.y"), True)[1]]
    assert field.round() == ["server.unreachable"]
    before = field.state()
    with field.bench.running() as agent, pytest.raises(TrustError, match=r"trust\.not_released"):
        agent.go_back(MODEL)
    assert field.state() == before
    journal = load_journal(field.bench.folder / "journal.json")
    assert journal is not None
    assert journal.state == "downloading"  # what was under way goes on


def test_a_bundle_counts_by_what_the_device_has_seen_since(field: Field, tmp_path: Path) -> None:
    wanted = field.shelf.wanted(2, "xor-12", assignment=None)
    brought = field.plane.signed(wanted)
    built = field.shelf.packages["xor-12"]
    field.repository.withdraw(2)
    field.want(1, None)
    assert field.round() == []  # the device hears of it
    before = field.state()
    with field.bench.running() as agent, pytest.raises(TrustError, match=r"trust\.not_released"):
        agent.install(wanted, brought, lambda _, place: files.copy(built.path, place))
    assert field.state() == before
    field.repository.release(2, field.shelf.digests[2])
    assert field.round() == []
    with field.bench.running() as agent:
        again = field.plane.signed(wanted)
        assert agent.install(wanted, again, lambda _, p: files.copy(built.path, p)) == []
    assert field.bench.in_use() == field.shelf.digests[2]


def test_a_bundle_that_has_expired_is_refused(field: Field) -> None:
    wanted = field.shelf.wanted(2, "xor-12", assignment=None)
    brought = field.plane.signed(wanted)
    before = field.state()
    with field.bench.running() as agent:
        agent.clock.wait(15 * DAY)
        with pytest.raises(TrustError, match=r"trust\.expired"):
            agent.install(wanted, brought, lambda _, place: None)
    assert field.state() == before


def test_a_bundle_goes_back_where_that_is_meant(field: Field) -> None:
    field.want(2, "xor-12")
    assert field.round() == []
    wanted = field.shelf.wanted(1, None, assignment=None, rollback=False)
    brought = field.plane.signed(wanted)
    with field.bench.running() as agent:
        with pytest.raises(TrustError, match=r"trust\.older_version"):
            agent.install(wanted, brought, lambda _, place: None)
        meant = wanted.model_copy(update={"rollback": True})
        assert agent.install(meant, brought, lambda _, place: None) == []
    assert field.bench.in_use() == field.shelf.digests[1]
