"""`apply`, `digest` and the settings, as an operator meets them."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from edge_agent import cli
from edge_agent.config import (
    Config,
    FileRuntime,
    LinkConfig,
    ModelConfig,
    ProgramRuntime,
    load_config,
)
from shared.errors import BadConfig

GOOD = 'server = "https://weft.example"\n[models.digits]\n'


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any, str]:
    """Exit status, standard output (parsed if it is JSON) and standard error."""
    status = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    as_json = "--json" in arguments
    return status, json.loads(captured.out) if as_json else captured.out, captured.err


def test_digest(shelf: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "digest", shelf.weights[1]) == (0, shelf.digests[1] + "\n", "")
    status, said, _ = run(capsys, "digest", "--json", shelf.weights[1])
    assert (status, said) == (0, {"weights_digest": shelf.digests[1]})


def test_apply_makes_the_new_weights(
    shelf: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new.safetensors"
    package = shelf.packages["xor-12"].path
    status, said, _ = run(
        capsys,
        *("apply", "--json", "--base", shelf.weights[1]),
        *("--package", package, "--output", output),
    )
    assert (status, said["weights_digest"]) == (0, shelf.digests[2])
    assert run(capsys, "digest", output)[1].strip() == shelf.digests[2]


def test_apply_of_a_full_package_needs_no_base(
    shelf: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new.safetensors"
    package = shelf.packages["full-1"].path
    status, said, _ = run(capsys, "apply", "--package", package, "--output", output)
    assert status == 0
    assert shelf.digests[1] in said


def test_apply_refuses_and_leaves_nothing(
    shelf: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = shelf.packages["xor-12"].path.read_bytes()
    damaged, cut = tmp_path / "damaged.weft", tmp_path / "cut.weft"
    damaged.write_bytes(good[:-20] + bytes(20))
    cut.write_bytes(good[:-20])
    output = tmp_path / "out" / "new.safetensors"
    output.parent.mkdir()
    output.write_bytes(b"what was there")
    for base, package, code in (
        (shelf.weights[2], shelf.packages["xor-12"].path, "package.wrong_base"),
        (None, shelf.packages["xor-12"].path, "package.wrong_base"),
        (shelf.weights[1], damaged, "package.malformed"),
        (shelf.weights[1], cut, "package.malformed"),
        (shelf.weights[1], tmp_path / "none.weft", "package.not_found"),
        (tmp_path / "none", shelf.packages["xor-12"].path, "weights.not_found"),
    ):
        given = ("--base", base) if base else ()
        status, said, stderr = run(
            capsys, "apply", "--json", *given, "--package", package, "--output", output
        )
        assert (status, said["error"]["code"]) == (1, code)
        assert said["error"]["todo"] in stderr
        assert [path.name for path in output.parent.iterdir()] == [output.name]
        assert output.read_bytes() == b"what was there"


def test_apply_into_a_directory_that_is_not_there(
    shelf: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package, output = shelf.packages["full-1"].path, tmp_path / "none" / "new"
    status, said, _ = run(capsys, "apply", "--json", "--package", package, "--output", output)
    assert (status, said["error"]["code"]) == (2, "storage.unusable")


@pytest.mark.parametrize("place", [".", "..", "/", "/dev/null"])
def test_apply_into_what_is_no_file(
    place: str, shelf: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    package = shelf.packages["full-1"].path
    status, said, _ = run(capsys, "apply", "--json", "--package", package, "--output", place)
    assert (status, said["error"]["code"]) == (2, "storage.unusable")
    assert said["error"]["message"].startswith(f"{place} is ")


@pytest.mark.parametrize(
    "arguments", [[], ["aply"], ["apply"], ["digest"], ["digest", "--colour", "file"]]
)
def test_a_wrong_command_line_is_the_users_fault(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, said, stderr = run(capsys, *arguments)
    assert (status, said) == (1, "")
    assert "usage: edge-agent" in stderr


def test_help_is_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    status, said, _ = run(capsys, "apply", "--help")
    assert status == 0
    assert "--package" in said


def test_a_mistake_of_ours_is_no_fault_of_the_user(
    shelf: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_reader: object) -> bytes:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("shared.weights.WeightsReader.digest", broken)
    status, _, stderr = run(capsys, "digest", shelf.weights[1])
    assert status == 2
    assert "ZeroDivisionError: a bug" in stderr


def test_settings_come_from_the_file_and_the_environment_wins(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(GOOD + 'health_command = ["judge", "--strict"]\n')
    config = load_config(path, {"WEFT_AGENT_POLL_SECONDS": "5", "HOME": "/"})
    assert config.poll_seconds == 5
    assert config.models["digits"].health_command == ["judge", "--strict"]
    changed = load_config(None, {"WEFT_AGENT_CONFIG": str(path), "WEFT_AGENT_NAME": "lamp"})
    assert changed.name == "lamp"
    models = load_config(path, {"WEFT_AGENT_MODELS": '{"faces": {}}'}).models
    assert list(models) == ["faces"]


@pytest.mark.parametrize(
    ("text", "environment", "code", "named"),
    [
        ("[models.digits]", {}, "config.missing", "server"),
        ('server = "https://weft.example"', {}, "config.missing", "models"),
        ("server = ", {}, "config.invalid", "TOML"),
        (GOOD, {"WEFT_AGENT_POLL_SECNDS": "5"}, "config.invalid", "WEFT_AGENT_POLL_SECNDS"),
        (GOOD, {"WEFT_AGENT_POLL_SECONDS": "soon"}, "config.invalid", "poll_seconds"),
        (GOOD, {"WEFT_AGENT_MODELS": "digits"}, "config.invalid", "WEFT_AGENT_MODELS"),
        (GOOD + "colour = 1", {}, "config.invalid", "colour"),
        ('server = "ftp://x"\n[models.digits]', {}, "config.invalid", "server"),
        ('server = "https://x/path"\n[models.digits]', {}, "config.invalid", "path"),
        ('server = "http://weft.example"\n[models.digits]', {}, "config.invalid", "https"),
        ('server = "https://x"\n[models."../x"]', {}, "config.invalid", "models"),
    ],
)
def test_wrong_settings_are_named(
    tmp_path: Path, text: str, environment: dict[str, str], code: str, named: str
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(BadConfig) as raised:
        load_config(path, environment)
    assert raised.value.code == code
    assert named in raised.value.message


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("poll_second = 5", "poll_second: there is no such setting"),
        ("poll_seconds = 'ten'", "poll_seconds: must be a number"),
        ("max_attempts = 1.5", "max_attempts: must be a whole number"),
        ("server = 5", "server: must be a text in quotes"),
        ('name = "two\\nlines"', "name: must be one line"),
        ('name = ""', "name: must not be empty"),
        ("links = 4", "links: must be a table"),
        ('attributes = { 1a = "x" }', "attributes.1a: this name must have"),
        ('metrics_file = "/run/weft.txt"', "metrics_file: node_exporter reads only"),
        ('proxy = "socks5://gate"', "proxy: must be http://"),
        ('log_level = "loud"', "log_level: must be 'debug', 'info'"),
        ('models = { "../x" = {} }', "models.../x: this name must have"),
        ('models = { "" = {} }', "models.'': this name must have"),
        (
            'models.m.install_window = "25-26"',
            "models.m.install_window: must be two times of a day",
        ),
        ('models.m.health_command = "x"', "models.m.health_command: must be a list"),
        ("models.m.health_command = []", "models.m.health_command: must not be empty"),
        ('models.m.runtime.kind = "prog"', "models.m.runtime: kind must be one of 'file', 'prog"),
        ('models.m.runtime.notify_signal = "FOO"', "models.m.runtime.notify_signal: there is no"),
        ('models.m.runtime.notify_signal = "HUP"', "models.m.runtime: notify_signal needs notify_"),
        ('models.file.runtime.socket = "/x"', "models.file.runtime.socket: there is no such"),
        ('models.m.runtime.kind = "program"', "the setting models.m.runtime.socket is missing, in"),
        (
            f'models.m.runtime = {{ kind = "program", socket = "/{"x" * 107}" }}',
            "models.m.runtime.socket: a socket's path has at most 107 bytes",
        ),
    ],
)
def test_wrong_settings_are_explained(tmp_path: Path, setting: str, said: str) -> None:
    """In words of the file, not of the library that reads it."""
    path = tmp_path / "agent.toml"
    given = setting.partition(" =")[0].partition(".")[0]
    rest = {"server": 'server = "https://x"', "models": "models.a = {}"}
    path.write_text("\n".join([setting, *(rest[name] for name in rest if name != given)]))
    with pytest.raises(BadConfig) as raised:
        load_config(path, {})
    assert raised.value.message.startswith(said)
    assert "Input" not in raised.value.message


@pytest.mark.parametrize("host", ["lamp-3", "a" * 64, ""])
def test_a_host_name_that_is_no_name_is_said_before_it_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(GOOD)
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    if host:
        assert load_config(path, {}).name == host
    else:
        with pytest.raises(BadConfig, match="name: must not be empty"):
            load_config(path, {})


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(GOOD + 'storage = "c"\n' + "\n".join(f"colour_{i} = 1" for i in range(5)))
    with pytest.raises(BadConfig) as raised:
        load_config(path, {})
    storage, *others = raised.value.message.split("; ")
    assert storage == "models.digits.storage: must be 'ab' or 'inplace'"
    assert others[:4] == [f"models.digits.colour_{i}: there is no such setting" for i in range(4)]
    assert others[4:] == ["1 more"]


def test_plain_http_is_for_this_machine_or_said_explicitly(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(GOOD)
    load_config(path, {"WEFT_AGENT_SERVER": "http://127.0.0.1:8300"})
    load_config(path, {"WEFT_AGENT_SERVER": "http://server:8300", "WEFT_AGENT_ALLOW_HTTP": "true"})


@pytest.mark.parametrize("token", ["two words", "schlüssel", "a\nheader", "short", "x" * 513])
def test_a_token_that_no_header_can_hold_is_refused_without_showing_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], token: str
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(f"enrolment_token = {json.dumps(token)}\n{GOOD}", encoding="utf-8")
    status, said, err = run(capsys, "once", "--json", "--config", path)
    assert (status, said["error"]["code"]) == (1, "config.invalid")
    assert "enrolment_token: must have 8 to 512 visible ASCII" in said["error"]["message"]
    assert token not in err
    assert "Traceback" not in err


def test_an_empty_token_is_none() -> None:
    environment = {"WEFT_AGENT_SERVER": "https://x", "WEFT_AGENT_MODELS": '{"m": {}}'}
    config = load_config(None, environment | {"WEFT_AGENT_ENROLMENT_TOKEN": ""})
    assert config.enrolment_token is None


def test_a_wrong_secret_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('server = "https://x"\nenrolment_token = ["hunter2"]\n[models.digits]\n')
    with pytest.raises(BadConfig) as raised:
        load_config(path, {})
    assert "hunter2" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, said, _ = run(capsys, "status", "--json", "--config", tmp_path / "none.toml")
    assert (status, said["error"]["code"]) == (1, "config.missing")


def documented(text: str, heading: str) -> dict[str, str]:
    """The first two cells of each row of the first table below a heading."""
    section = text.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.*?) \|", section, re.MULTILINE)
    return dict(rows)


@pytest.mark.parametrize(
    ("model", "heading"),
    [
        (Config, "## Settings"),
        (ModelConfig, "### Settings of a model"),
        (FileRuntime, "### Settings of the runtime `file`"),
        (ProgramRuntime, "### Settings of the runtime `program`"),
        (LinkConfig, "### Settings of a link"),
    ],
)
def test_every_setting_is_documented(checkout: Path, model: Any, heading: str) -> None:
    text = (checkout / "docs" / "edge-agent.md").read_text(encoding="utf-8")
    expected = {name: field.description for name, field in model.model_fields.items()}
    assert documented(text, heading) == expected


def test_every_command_and_state_is_documented(checkout: Path) -> None:
    from typing import get_args

    from shared.wire import State

    text = (checkout / "docs" / "edge-agent.md").read_text(encoding="utf-8")
    for command in ("run", "once", "status", "apply", "digest"):
        assert f"`edge-agent {command}" in text
    assert set(get_args(State)) == set(documented(text, "## States"))
