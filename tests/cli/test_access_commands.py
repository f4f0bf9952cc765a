"""`weft access`, `weft login` and `weft recover-key`, against a real server that wants keys."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

KEY = "the-declared-key-of-this-test"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, lasting_databases: Any) -> Any:
    """A new server that wants keys: what it said at its start, and its folder."""
    from tests.cli.conftest import ServerProcess

    data = tmp_path_factory.mktemp("locked")
    environment = {**lasting_databases.environment(data), "WEFT_REQUIRE_KEYS": "true"}
    process = ServerProcess(data, **environment)
    said = process.said
    yield said | {"data": data, "environment": environment}
    _, err = process.stop()
    assert said["admin_key"] not in err


@pytest.fixture
def ask(weft: Any, locked: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("WEFT_KEY", locked["admin_key"])
    return lambda *words: weft(*words, "--json", "--server", locked["url"])


def test_the_first_start_shows_a_key_that_makes_others(ask: Any) -> None:
    made = ask("access", "create", "ci", "--role", "operator", "--model", "digits", "--days", "30")
    assert made.status == 0, made.err
    assert (made.json["role"], made.json["models"]) == ("operator", ["digits"])
    listed = ask("access", "list").json["items"]
    assert {"first", "ci"} <= {key["name"] for key in listed}
    assert "weft_" not in json.dumps(listed)
    assert ask("access", "revoke", "ci").json["state"] == "revoked"
    assert ask("access", "show", "ci").json["state"] == "revoked"
    assert ask("access", "whoami").json["name"] == "first"


def test_what_a_key_may_not_do_is_told_with_what_to_do(ask: Any, weft: Any, locked: Any) -> None:
    key = ask("access", "create", "reader", "--role", "viewer").json["key"]
    refused = weft("models", "create", "m", "--json", "--server", locked["url"], "--key", key)
    assert (refused.status, refused.code) == (1, "request.forbidden")
    assert "this needs the role operator; reader is viewer" in refused.err
    wrong = weft("models", "list", "--server", locked["url"], "--key", "wrong")
    assert wrong.status == 1
    assert "weft login" in wrong.err


def test_login_keeps_a_key_for_its_server_alone(
    weft: Any, locked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WEFT_KEY", raising=False)
    monkeypatch.setenv("WEFT_KEY_FILE", str(tmp_path / "folder" / "keys"))
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{locked['admin_key']}\n"))
    done = weft("login", "--json", "--server", locked["url"])
    assert done.status == 0, done.err
    path = Path(done.json["file"])
    assert path.stat().st_mode & 0o777 == 0o600
    assert locked["admin_key"] not in done.out + done.err
    assert weft("models", "list", "--server", locked["url"]).status == 0
    other = locked["url"].replace("127.0.0.1", "localhost")
    assert weft("models", "list", "--json", "--server", other).code == "request.unauthorized"
    path.chmod(0o644)
    refused = weft("models", "list", "--json", "--server", locked["url"])
    assert (refused.status, refused.code) == (1, "config.invalid")


def test_login_keeps_no_key_that_opens_nothing(
    weft: Any, locked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEFT_KEY_FILE", str(tmp_path / "keys"))
    for text, code in (("wrong\n", "request.unauthorized"), ("", "command.invalid")):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        assert weft("login", "--json", "--server", locked["url"]).code == code
    assert not (tmp_path / "keys").exists()


def test_a_lost_key_is_replaced_on_the_servers_machine(
    weft: Any, locked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in locked["environment"].items():
        monkeypatch.setenv(name, value)
    made = weft("recover-key", "mine", "--data-dir", locked["data"], "--json")
    assert made.status == 0, made.err
    words = ("access", "whoami", "--json", "--server", locked["url"], "--key", made.json["key"])
    assert weft(*words).json["role"] == "admin"
    again = weft("recover-key", "mine", "--data-dir", locked["data"], "--json")
    assert (again.status, again.code) == (1, "access.exists")


def test_nothing_is_recovered_where_there_is_no_server(weft: Any, tmp_path: Path) -> None:
    if "WEFT_DATABASE_URL" in os.environ:
        pytest.skip("only SQLite lies in a folder")
    done = weft("recover-key", "--data-dir", tmp_path, "--json")
    assert (done.status, done.code) == (2, "database.not_migrated")
    assert list(tmp_path.iterdir()) == []


def test_history_shows_who(ask: Any) -> None:
    ask("models", "create", "history-of-keys")
    (event,) = ask("history", "--kind", "model.created", "--limit", "1").json["items"]
    assert (event["actor"], event["address"]) == ("first", "127.0.0.1")
