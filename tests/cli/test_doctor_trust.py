"""`weft doctor` on keys and signatures: each thing that can be wrong is found, and what to do."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.trust import expiry
from tests.cli.site import Site, embedded, passphrases, release, site

__all__ = ["embedded", "passphrases", "site"]

pytestmark = pytest.mark.sqlite("the rows are changed in the file")


def examine(site: Site, monkeypatch: Any) -> dict[str, Any]:
    """The checks by name, of the server as it runs."""
    monkeypatch.setenv("WEFT_PORT", site.running.url.rpartition(":")[2])
    monkeypatch.setenv("WEFT_KEYS_DIR", str(site.keys))
    monkeypatch.setenv("WEFT_JOBS_AT_ONCE", "0")  # else each call imports torch in a process
    done = site._weft("doctor", "--data-dir", site.data, "--json")
    return {check["check"]: check for check in done.json["checks"]}


def change(site: Site, statement: str, *values: Any) -> None:
    with sqlite3.connect(site.data / "weft.db") as database:
        assert database.execute(statement, values).rowcount
    database.close()


def test_a_server_of_a_ceremony_is_well(site: Site, monkeypatch: Any) -> None:
    release(site, 1)
    found = examine(site, monkeypatch)
    names = ("keys folder", "offline keys", "root keys", "online keys", "signatures", "releases")
    assert [found[name]["state"] for name in names] == ["ok"] * 6
    assert found["root keys"]["found"] == "2 of 3 root keys sign"


def test_keys_that_a_server_has_made_itself(embedded: Site, monkeypatch: Any) -> None:
    found = examine(embedded, monkeypatch)
    assert found["offline keys"]["state"] == "warn"
    assert "weft keys offline" in found["offline keys"]["todo"]
    assert found["root keys"]["state"] == "warn"
    assert found["online keys"]["state"] == "ok"


def test_keys_that_others_can_read(site: Site, monkeypatch: Any) -> None:
    [key] = site.keys.glob("timestamp-*.pem")
    key.chmod(0o644)
    found = examine(site, monkeypatch)
    assert found["keys folder"]["state"] == "fail"
    assert str(key) in found["keys folder"]["todo"]
    key.chmod(0o600)
    site.keys.chmod(0o755)
    assert str(site.keys) in examine(site, monkeypatch)["keys folder"]["todo"]


@pytest.mark.parametrize("word", ["packages", "snapshot", "timestamp"])
def test_a_key_that_is_gone(site: Site, monkeypatch: Any, word: str) -> None:
    release(site, 1)
    [key] = site.keys.glob(f"{word}-*.pem")
    key.unlink()
    found = examine(site, monkeypatch)["online keys"]
    assert found["state"] == "fail"
    assert word in found["found"]


@pytest.mark.parametrize(("days", "state"), [(60, "warn"), (-1, "fail")])
def test_what_expires(site: Site, monkeypatch: Any, days: int, state: str) -> None:
    release(site, 1)
    end = datetime.now(UTC) + timedelta(days=days)
    change(
        site,
        "UPDATE trust_metadata SET expires_at = ? WHERE role = 'targets'",
        end.strftime("%Y-%m-%d %H:%M:%S.000000"),
    )
    found = examine(site, monkeypatch)["release of digits"]
    assert found["state"] == state
    assert "weft keys renew release" in found["todo"]
    site.done("keys", "renew", "release", "--folder", site.offline, "--yes")
    assert examine(site, monkeypatch)["signatures"]["state"] == "ok"


def test_what_a_restore_has_left_old(site: Site, monkeypatch: Any) -> None:
    release(site, 1)
    change(site, "UPDATE trust_metadata SET due_at = created_at WHERE role = 'targets'")
    found = examine(site, monkeypatch)["release of digits"]
    assert found["state"] == "warn"
    assert "backup" in found["found"]


def test_a_rollout_to_a_version_that_nobody_released(site: Site, monkeypatch: Any) -> None:
    release(site, 1)
    release(site, 2)
    site.done("rollouts", "start", "digits", 2)
    assert examine(site, monkeypatch)["releases"]["state"] == "ok"
    change(site, "UPDATE versions SET released_at = NULL WHERE number = 2")
    found = examine(site, monkeypatch)["releases"]
    assert found["state"] == "warn"
    assert "digits 2" in found["found"]


def test_the_share_of_a_life_at_which_somebody_is_told() -> None:
    assert {role: span.days for role, span in expiry.CONCERN.items()} == {
        "root": 219,
        "targets": 109,
        "packages": 9,
        "snapshot": 9,
        "timestamp": 4,
    }
