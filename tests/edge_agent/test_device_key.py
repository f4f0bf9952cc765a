"""The device's key: made before enrolment, kept private, and what it signs."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent.status import status
from edge_agent.errors import AgentError
from edge_agent.identity import load_identity
from edge_agent.keys import DeviceKey
from shared.errors import WeftError
from shared.wire import SIGNATURE_HEADER
from tests.device_keys import has_signed
from tests.edge_agent.plane import Plane


def refuse(path: str, status_: int, code: str) -> Any:
    """A fault: the next request to `path` is refused."""

    def fault(handler: Any) -> bool:
        if not handler.path.startswith(path):
            return False
        handler.problem(status_, code)
        return True

    return fault


def test_the_key_is_on_disk_before_anybody_hears_of_it(
    bench: Any, plane: Plane, tmp_path: Path
) -> None:
    plane.faults = [refuse("/device/v1/enrol", 503, "service.overloaded")]
    with pytest.raises(WeftError):
        bench.round()
    path = tmp_path / "state" / "device.key"
    made = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not (tmp_path / "state" / "identity.json").exists()
    assert bench.round() == []
    assert path.read_bytes() == made
    assert plane.keys == [DeviceKey(path).public]


def test_an_enrolment_whose_answer_was_lost_comes_again_under_the_same_key(
    bench: Any, plane: Plane
) -> None:
    def lose(handler: Any) -> bool:
        if handler.path != "/device/v1/enrol":
            return False
        handler.close_connection = True
        handler.connection.shutdown(2)
        return True

    plane.faults = [lose]
    with pytest.raises(WeftError):
        bench.round()
    bench.round()
    assert len(plane.asked("/device/v1/enrol")) == 2
    assert [e.key for e in plane.enrolments] == plane.keys


def test_reports_are_signed_as_they_are_sent(bench: Any, plane: Plane, shelf: Any) -> None:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    bench.round()
    (headers,) = plane.asked("/device/v1/reports")
    (body,) = plane.bodies
    signature = headers[SIGNATURE_HEADER.lower()]
    assert has_signed(plane.keys[0], "report", "device-1", body, signature)
    assert not has_signed(plane.keys[0], "report", "device-2", body, signature)


def test_what_signs_is_not_loaded_before_it_is_needed() -> None:
    script = (
        "import sys, edge_agent.commands; "
        "sys.exit(any(name.startswith('cryptography') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("words", [("key", "--json"), ("key",)])
def test_the_public_key_is_printed_before_the_device_has_enrolled(
    bench: Any, plane: Plane, tmp_path: Path, words: tuple[str, ...]
) -> None:
    command = [sys.executable, "-m", "edge_agent.cli", *words]
    said = [subprocess.check_output(command, env=bench.environment, text=True) for _ in "12"]
    public = DeviceKey(tmp_path / "state" / "device.key").public
    assert [text.split()[-1].strip('"}') for text in said] == [public, public]
    bench.round()
    assert plane.keys == [public]


def test_a_key_that_others_can_read_is_shut(
    bench: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench.round()
    path = tmp_path / "state" / "device.key"
    made = path.read_bytes()
    path.chmod(0o644)
    DeviceKey(path).sign("report", "d", b"")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == made
    assert "could be read by others" in caplog.text


def test_a_key_that_is_none_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "device.key").write_bytes(b"short")
    (tmp_path / "device.key").chmod(0o600)
    key = DeviceKey(tmp_path / "device.key")
    key.make()
    with pytest.raises(AgentError) as refused:
        key.sign("report", "d", b"")
    assert refused.value.code == "agent.state_damaged"
    assert (tmp_path / "device.key").read_bytes() == b"short"


def test_without_its_key_a_device_enrols_anew(bench: Any, plane: Plane, tmp_path: Path) -> None:
    bench.round()
    (tmp_path / "state" / "device.key").unlink()
    bench.round()
    assert len(plane.enrolments) == 2
    assert len(set(plane.keys)) == 2


def test_a_token_that_is_refused_is_renewed_by_the_key(
    bench: Any, plane: Plane, tmp_path: Path
) -> None:
    bench.round()
    plane.token = "another-token"
    assert bench.round() == []
    assert [r.counter for r in plane.renewals] == [1]
    identity = load_identity(tmp_path / "state" / "identity.json")
    assert identity is not None
    assert (identity.token, identity.renewals) == (plane.token, 1)
    assert len(plane.enrolments) == 1
    assert "authorization" not in plane.asked("/device/v1/token")[0]


def test_the_counter_of_renewals_is_persisted_before_each(
    bench: Any, plane: Plane, tmp_path: Path
) -> None:
    bench.round()
    plane.token = "another-token"
    plane.faults = [refuse("/device/v1/token", 503, "service.overloaded")]
    with pytest.raises(WeftError):
        bench.round()
    assert load_identity(tmp_path / "state" / "identity.json").renewals == 1  # type: ignore[union-attr]
    assert bench.round() == []
    assert [r.counter for r in plane.renewals] == [2]


@pytest.mark.parametrize(
    ("status_", "code", "told"),
    [
        (401, "device.unauthorized", "agent.token_refused"),
        (403, "device.decommissioned", "agent.decommissioned"),
        (403, "device.cloned", "server.refused"),
    ],
)
def test_a_renewal_that_is_refused_says_why(
    bench: Any, plane: Plane, status_: int, code: str, told: str
) -> None:
    bench.round()
    plane.token = "another-token"
    plane.faults = [refuse("/device/v1/token", status_, code)]
    with pytest.raises(WeftError) as refused:
        bench.round()
    assert refused.value.code == told
    assert len(plane.asked("/device/v1/token")) == 1


def test_a_decommissioned_device_asks_once_an_hour(bench: Any, plane: Plane) -> None:
    with bench.running() as agent:
        bench.go_on(agent)
        plane.token = "another-token"
        plane.faults = [refuse("/device/v1/token", 403, "device.decommissioned")]
        agent.clock.wait(agent.pause())
        agent._next_poll = agent.clock.now()
        assert [e.code for e in agent.turn()] == ["agent.decommissioned"]
        assert agent.pause() >= 3500


def test_a_device_that_waits_keeps_its_reports(bench: Any, plane: Plane, shelf: Any) -> None:
    plane.pending, plane.held = True, "not_accepted"
    bench.settings["attributes"] = {"line": "3"}
    bench.round()
    bench.settings["attributes"] = {"line": "4"}
    plane.faults = [refuse("/device/v1/reports", 403, "device.not_accepted")]
    with bench.running() as agent:
        assert bench.go_on(agent) == []
        assert agent.hold == "not_accepted"
        agent.turn()  # no poll is due: the reports are not tried again
    assert len(plane.asked("/device/v1/reports")) == 1
    assert status(bench.config)["pending_reports"] == 1
    plane.held = None
    plane.offer(shelf, None)
    with bench.running() as agent:
        assert bench.go_on(agent) == []
        assert agent.hold is None
    assert [r.attributes["line"] for r in plane.reports if r.attributes] == ["4"]
    assert status(bench.config)["pending_reports"] == 0
