"""Writes that are whole or absent, the gate for packages, the outbox, the health check."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from edge_agent import files, health, trust
from edge_agent.api import Backoff
from edge_agent.config import ModelConfig
from edge_agent.errors import AgentError, HealthError, TrustError, WrongWeights
from edge_agent.reconstitute import reconstitute, result_sizes
from edge_agent.report import Outbox
from edge_agent.slots import Directory
from shared.errors import BadPackage, NoSpace
from shared.wire import Fault, Report


def report(version: int) -> Report:
    return Report(
        counter=1,
        model="digits",
        version=version,
        result="committed",
        state="committed",
        weights_digest=None,
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "file"
    files.write(target, b"old")
    with files.replacing(target, files.PRIVATE) as file:
        file.write(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "file"
    files.write(target, b"old")
    with pytest.raises(error), files.replacing(target) as file:  # noqa: PT012 - the block is tested
        file.write(b"half")
        raise error
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "storage.no_space"),
        (errno.EDQUOT, "storage.no_space"),
        (errno.EIO, "storage.unusable"),
        (errno.EROFS, "storage.unusable"),
    ],
)
def test_a_disk_that_fails_at_fsync_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    target = tmp_path / "file"
    files.write(target, b"old")

    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", fail)
        with pytest.raises(NoSpace) as raised:
            files.write(target, b"new")
    assert raised.value.code == code
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_what_a_killed_agent_left_is_cleaned(tmp_path: Path) -> None:
    (tmp_path / f".journal.json.4242{files.SUFFIX}").write_bytes(b"half")
    (tmp_path / "journal.json").write_bytes(b"{}")
    files.clean(tmp_path)
    assert names(tmp_path) == ["journal.json"]


def test_a_link_is_turned_and_nothing_is_left(tmp_path: Path) -> None:
    slots = Directory(tmp_path / "model")
    slots.prepare()
    assert slots.current() is None
    for name in ("a", "b", "a"):
        slots.point_to(name)  # type: ignore[arg-type]
        assert slots.current() == name
    assert names(slots.directory) == ["current", "slots"]


def wanted_and_copy(shelf: Any, folder: Path, name: str, version: int) -> tuple[Any, Path]:
    path = folder / "package.weft"
    path.write_bytes(shelf.packages[name].path.read_bytes())
    return shelf.wanted(version, name), path


def test_the_gate_admits_what_was_offered(shelf: Any, tmp_path: Path) -> None:
    wanted, path = wanted_and_copy(shelf, tmp_path, "xor-12", 2)
    with trust.admit(path, *trust.promises(wanted)) as admitted:
        assert admitted.package.result_digest.hex() == shelf.digests[2]
        assert result_sizes([admitted], shelf.weights[1]) == [4 * (24 * 40 + 24 + 10 * 24 + 10)]


def test_the_gate_looks_again_at_what_lay_on_the_disk(shelf: Any, tmp_path: Path) -> None:
    wanted, path = wanted_and_copy(shelf, tmp_path, "xor-12", 2)
    good = path.read_bytes()
    for data, code in (
        (good[:-1], "trust.wrong_length"),
        (good + b"\0", "trust.wrong_length"),
        (good[:-1] + bytes([good[-1] ^ 1]), "trust.wrong_hash"),
    ):
        path.write_bytes(data)
        with pytest.raises(TrustError) as raised, trust.admit(path, *trust.promises(wanted)):
            pass
        assert raised.value.code == code


def test_the_gate_holds_the_header_against_the_offer(shelf: Any, tmp_path: Path) -> None:
    wanted, path = wanted_and_copy(shelf, tmp_path, "xor-12", 2)
    other = wanted.package.model_copy(update={"base_digest": shelf.digests[3]})
    for changes, code in (
        ({"package": other}, "trust.wrong_base"),
        ({"weights_digest": shelf.digests[3]}, "trust.wrong_result"),
        ({"model": "faces"}, "trust.wrong_model"),
    ):
        offered = wanted.model_copy(update=changes)
        with pytest.raises(TrustError) as raised, trust.admit(path, *trust.promises(offered)):
            pass
        assert raised.value.code == code


def test_a_package_that_breaks_its_promise_names_the_tensors(shelf: Any, tmp_path: Path) -> None:
    good = shelf.packages["xor-12"].path.read_bytes()
    path, output = tmp_path / "package.weft", tmp_path / "out" / "new"
    output.parent.mkdir()
    path.write_bytes(good.replace(bytes.fromhex(shelf.digests[2]), bytes(32)))
    with trust.admit_local(path, 1 << 20) as admitted, pytest.raises(WrongWeights) as raised:
        reconstitute(admitted, shelf.weights[1], output)
    assert raised.value.code == "result.mismatch"
    assert set(raised.value.tensor_digests) == {
        "body.bias",
        "body.weight",
        "head.bias",
        "head.weight",
    }
    assert names(output.parent) == []


def test_a_local_package_has_a_limit_too(shelf: Any) -> None:
    path = shelf.packages["full-1"].path
    with pytest.raises(BadPackage, match="too_large"), trust.admit_local(path, 100):
        pass


def test_the_outbox_counts_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "reports.json"
    Outbox(path).add(report(1))
    Outbox(path).add(report(1))  # the step that adds it was repeated
    Outbox(path).add(report(2))
    again = Outbox(path)
    assert again.pending == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_happens_once_more_is_told_once_more(tmp_path: Path) -> None:
    """Without a server: a bundle, gone back from by hand, and the same bundle again."""
    outbox = Outbox(tmp_path / "reports.json")
    back = report(1).model_copy(update={"result": "failed_rolled_back", "state": "rolled_back"})
    for told in (report(1), back, report(1), report(2), report(1)):
        outbox.add(told)
    assert outbox.pending == 5


def test_what_is_put_off_for_changing_reasons_is_told_of_once_for_each(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "reports.json")
    outbox.add(report(1))
    for _ in range(3):
        for code in ("storage.no_space", "link.metered"):
            fault = Fault(code=code, message="not now")
            outbox.add(
                report(2).model_copy(
                    update={"result": "failed_no_change", "state": "deferred", "error": fault}
                )
            )
    assert outbox.pending == 3


def test_the_outbox_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.report.MAX_PENDING", 3)
    outbox = Outbox(tmp_path / "reports.json")
    for version in range(1, 6):
        outbox.add(report(version))
    assert outbox.pending == 3


def test_a_damaged_outbox_is_named(tmp_path: Path) -> None:
    path = tmp_path / "reports.json"
    path.write_text("{")
    with pytest.raises(AgentError, match=r"reports\.json"):
        Outbox(path)


def test_pauses_grow_are_jittered_and_bounded() -> None:
    backoff = Backoff(first=1.0, longest=60.0)
    pauses = [backoff.next() for _ in range(50)]
    assert 0.5 <= pauses[0] <= 1.0
    assert all(30.0 <= pause <= 60.0 for pause in pauses[6:])
    assert len(set(pauses)) == 50
    assert backoff.next(at_least=600.0) == 600.0
    backoff.reset()
    assert backoff.next() <= 1.0


def test_a_health_check_has_a_time_limit(tmp_path: Path) -> None:
    config = ModelConfig(
        health_command=["python3", "-c", "import signal; signal.pause()"],
        health_timeout_seconds=0.2,
    )
    with pytest.raises(HealthError) as raised:
        health.check("digits", config, tmp_path, "00")
    assert raised.value.code == "health.timed_out"


def test_a_health_check_does_not_see_the_agents_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEFT_AGENT_ENROLMENT_TOKEN", "hunter2-hunter2")
    code = "import os, sys; sys.exit('hunter2' in os.environ.values())"
    config = ModelConfig(health_command=["python3", "-c", code])
    assert health.check("digits", config, tmp_path, "00") == "passed"
