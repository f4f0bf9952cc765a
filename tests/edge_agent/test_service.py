"""The unit, as systemd's own programs see it, and `edge-agent install-service`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import cli, service
from edge_agent.config import Config
from shared.errors import BadConfig

CONFIG = Path("/etc/weft/edge-agent.toml")
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is missing: install the package systemd",
)


def settings(**more: Any) -> Config:
    return Config.model_validate(
        {"server": "https://weft.example", "models": {"digits": {}}, **more}
    )


def lines(text: str, key: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{key}=")]


def installed(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    given = [str(argument) for argument in arguments]
    status = cli.main(["install-service", "--json", *given])
    return status, json.loads(capsys.readouterr().out)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The root directory of a device that has a configuration."""
    path = tmp_path / "image" / CONFIG.relative_to("/")
    path.parent.mkdir(parents=True)
    path.write_text('server = "https://weft.example"\n[models.digits]\n')
    return tmp_path / "image"


@pytest.fixture
def unit(image: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    status, said = installed(capsys, "--root", image)
    assert (status, said["changed"]) == (0, True)
    return Path(said["unit"])


def analyzed(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_template_is_the_unit_of_the_default_settings() -> None:
    made = service.unit(CONFIG, "weft-agent", settings(), [Path("/opt/weft/bin/edge-agent")])
    assert made == service.TEMPLATE.read_text()


@needs_systemd
def test_systemd_finds_nothing_wrong_with_it(unit: Path) -> None:
    said = analyzed("verify", unit)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


@needs_systemd
def test_a_mistake_in_it_would_be_found(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchdogSecs="))
    assert "WatchdogSecs" in analyzed("verify", unit).stderr


@needs_systemd
def test_little_is_allowed_but_devices_are(unit: Path) -> None:
    # In tenths: of 0, where nothing is allowed, to 100.
    said = analyzed("security", "--offline=true", "--threshold=20", unit)
    assert said.returncode == 0, said.stdout
    open_for_gpus = {"PrivateDevices=", "DeviceAllow=", "MemoryDenyWriteExecute="}
    found = {line.split()[1] for line in said.stdout.splitlines() if line.startswith("✗")}
    assert open_for_gpus <= found


def test_it_starts_the_agent_of_this_environment(unit: Path) -> None:
    (start,) = lines(unit.read_text(), "ExecStart")
    *program, command, option, path = start.split(" ")
    assert (command, option, Path(path)) == ("run", "--config", CONFIG)
    said = subprocess.run([*program, "--help"], capture_output=True, text=True)
    assert "usage: edge-agent" in said.stdout


def test_it_is_written_once(unit: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = unit.stat().st_ino
    assert installed(capsys, "--root", image)[1]["changed"] is False
    assert unit.stat().st_ino == before
    assert installed(capsys, "--root", image, "--user", "lamp")[1]["changed"] is True
    assert lines(unit.read_text(), "User") == ["lamp"]


def test_nothing_but_the_unit_is_written(unit: Path, image: Path) -> None:
    found = {path.relative_to(image) for path in image.rglob("*") if path.is_file()}
    assert found == {CONFIG.relative_to("/"), unit.relative_to(image)}


def test_it_may_write_where_the_configuration_says(image: Path) -> None:
    state = settings(state_dir="/var/lib/fleet/weft", run_dir="/run/fleet")
    made = service.unit(CONFIG, "weft-agent", state, ["agent"])
    assert lines(made, "StateDirectory") == ["fleet/weft"]
    assert lines(made, "RuntimeDirectory") == ["fleet"]
    assert lines(made, "ReadWritePaths") == []
    elsewhere = settings(state_dir="/data/my weft", metrics_file="/srv/metrics/weft.prom")
    made = service.unit(CONFIG, "weft-agent", elsewhere, ["agent"])
    assert lines(made, "StateDirectory") == []
    assert lines(made, "ReadWritePaths") == ['"-/data/my weft"', "-/srv/metrics"]


def test_a_service_has_no_directory_to_start_from() -> None:
    with pytest.raises(BadConfig, match="begin with /"):
        service.unit(CONFIG, "weft-agent", settings(state_dir="state"), ["agent"])


@needs_systemd
def test_odd_paths_are_quoted(image: Path) -> None:
    odd = settings(state_dir='/data/"100 %" of $it')
    text = service.unit(Path("/etc/my weft.toml"), "weft-agent", odd, [Path(sys.executable)])
    path = image / service.UNIT
    path.write_text(text)
    said = analyzed("verify", path)
    assert (said.returncode, said.stderr) == (0, "")
    assert '--config "/etc/my weft.toml"' in text


def test_homes_can_be_read_where_the_program_lies_in_one() -> None:
    for place, expected in (("/opt/weft/bin/edge-agent", "yes"), ("/home/a/weft", "read-only")):
        made = service.unit(CONFIG, "weft-agent", settings(), [Path(place)])
        assert lines(made, "ProtectHome") == [expected]


def test_what_is_left_to_do(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert installed(capsys, "--root", image)[1]["next"] == [
        f"useradd --root {image} --system --home-dir /var/lib/weft-agent weft-agent",
        f"systemctl --root {image} enable edge-agent",
    ]
    (tmp_path / "empty").mkdir()
    steps = installed(capsys, "--root", tmp_path / "empty")[1]["next"]
    assert any(f"edge-agent.toml {CONFIG}" in step for step in steps)


def test_a_bad_configuration_is_refused(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (image / CONFIG.relative_to("/")).write_text("server = 'https://weft.example'\nmodles = 1\n")
    status, said = installed(capsys, "--root", image)
    assert (status, said["error"]["code"]) == (1, "config.missing")
    assert not (image / "etc/systemd").exists()


def test_the_environment_of_the_command_is_not_the_service_s(
    image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEFT_AGENT_STATE_DIR", "/elsewhere")
    _, said = installed(capsys, "--root", image)
    assert lines(Path(said["unit"]).read_text(), "StateDirectory") == ["weft-agent"]


def test_a_service_cannot_see_temporary_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = installed(capsys, "--root", tmp_path, "--config", "/tmp/agent.toml")
    assert (status, said["error"]["code"]) == (1, "config.invalid")


@pytest.fixture
def somebody_elses() -> Iterator[Path]:
    """A directory in which this process, which permissions bind meanwhile, may not write."""
    was = os.geteuid()
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o555)
        if was == 0:
            os.seteuid(65534)
        yield Path(place)
        os.seteuid(was)


def test_without_permission_it_says_so(
    somebody_elses: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = installed(capsys, "--root", somebody_elses)
    assert (status, said["error"]["code"]) == (2, "agent.not_permitted")
    assert list(somebody_elses.iterdir()) == []


def test_a_machine_without_systemd_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(service, "UNITS", tmp_path / "none")
    status, said = installed(capsys, "--config", "/etc/weft/none.toml")
    assert (status, said["error"]["code"]) == (2, "agent.no_systemd")
