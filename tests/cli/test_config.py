"""The configuration file: what it sets, for which commands, and how it is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from server.cli import config
from server.settings import load_settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment of the test's own, without variables of Weft."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("WEFT_")}
    monkeypatch.setattr(os, "environ", own)
    return own


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "weft.toml"
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


def test_a_server_hears_of_its_table_and_the_environment_wins(write: Any, environment: Any) -> None:
    environment["WEFT_PORT"] = "7000"
    path = write(
        'server = "http://elsewhere"\nkey = "k"\n[serve]\nport = 9000\npoll_interval = 2.5\n'
        'auto_migrate = false\ndataset_roots = ["/a", "/b"]\njobs_at_once = 2\n'
    )
    config.apply_config("serve", path)
    settings = load_settings()
    assert (settings.port, settings.poll_interval, settings.auto_migrate) == (7000, 2.5, False)
    assert settings.dataset_roots == ("/a", "/b")
    assert environment["WEFT_JOBS_AT_ONCE"] == "2"
    assert settings.admin_key is None
    assert "WEFT_SERVER" not in environment


def test_ceremonies_hear_of_both(write: Any, environment: Any) -> None:
    path = write('server = "http://elsewhere"\n[serve]\nkeys_dir = "/etc/weft/keys"\n')
    config.apply_config("keys", path)
    assert environment["WEFT_SERVER"] == "http://elsewhere"
    assert load_settings().keys_folder == Path("/etc/weft/keys")


def test_a_client_hears_of_server_and_key(write: Any, weft: Any, environment: Any) -> None:
    environment["WEFT_CONFIG"] = str(write('server = "http://127.0.0.1:1"\nkey = "k"'))
    done = weft("models", "list", "--json")
    assert "http://127.0.0.1:1" in done.err
    assert environment["WEFT_KEY"] == "k"
    other = weft("models", "list", "--json", "--server", "http://127.0.0.1:2")
    assert "http://127.0.0.1:2" in other.err


def test_the_users_own_file_is_found(tmp_path: Path, weft: Any, environment: Any) -> None:
    environment["XDG_CONFIG_HOME"] = str(tmp_path)
    (tmp_path / "weft").mkdir()
    (tmp_path / "weft" / "config.toml").write_text('server = "http://127.0.0.1:3"')
    assert "http://127.0.0.1:3" in weft("models", "list").err
    environment.pop("WEFT_SERVER")
    environment["WEFT_CONFIG"] = ""
    assert "http://127.0.0.1:3" not in weft("models", "list", "--server", "http://[::1]:1").err


@pytest.mark.parametrize(
    ("text", "mode"), [('key = "k"', 0o640), ('[serve]\nadmin_key = "k"', 0o644)]
)
def test_a_secret_that_others_may_read_is_refused(
    write: Any, weft: Any, text: str, mode: int
) -> None:
    path = write(text)
    path.chmod(mode)
    done = weft("--config", path, "models", "list", "--json")
    assert (done.status, done.code) == (1, "config.invalid")
    assert "others may read it" in done.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[serve]\nprot = 1", "nobody knows serve.prot; did you mean port?"),
        ("[serve]\nport = {a = 1}", "serve.port must be a text"),
        ('sever = "x"', "nobody knows sever; did you mean server?"),
        ("serve = 1", "serve must be a table"),
        ("port", "weft.toml: "),
    ],
)
def test_what_nobody_understands_is_refused(write: Any, weft: Any, text: str, message: str) -> None:
    done = weft("--config", write(text), "models", "list", "--json")
    assert (done.status, done.code) == (1, "config.invalid")
    assert message in json.loads(done.err)["error"]["message"]


def test_a_wrong_value_is_refused_as_in_the_environment(write: Any, weft: Any) -> None:
    done = weft("--config", write('[serve]\nport = "high"'), "migrate", "--json")
    assert (done.status, done.code) == (1, "config.invalid")
    assert "WEFT_PORT" in done.err


def test_a_file_that_is_named_must_be_there(tmp_path: Path, weft: Any) -> None:
    done = weft("--config", tmp_path / "none.toml", "models", "list", "--json")
    assert (done.status, done.code) == (1, "config.missing")


def test_every_setting_can_stand_in_the_file() -> None:
    ours = [c for c in BaseSettings.__subclasses__() if c.__module__.startswith("server.")]
    assert set(ours) == set(config.SETTINGS)
