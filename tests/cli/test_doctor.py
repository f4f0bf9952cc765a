"""`weft doctor`: each thing that can be wrong is found, named, and told what to do about."""

from __future__ import annotations

import hashlib
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from server.cli import findings
from server.db import open_engine, writing
from server.storage.local import LocalStore
from server.tables import Event, Lease, Model, Version, now
from tests.bucket import CREDENTIALS, Service, s3, s3_process

__all__ = ["s3", "s3_process"]

pytestmark = pytest.mark.sqlite("the checks of PostgreSQL are a test of their own")

SECRETS = {"WEFT_ADMIN_KEY": "a-long-random-secret-1", "WEFT_ENROLMENT_TOKEN": "long-and-random-2"}
WEIGHTS = b"weights" * 1000
SHA = hashlib.sha256(WEIGHTS).hexdigest()


class Doctor:
    """Calls the command on a data folder; `findings` by the check's name."""

    def __init__(self, weft: Any, folder: Path) -> None:
        self._weft, self.folder = weft, folder

    def __call__(self, *words: str) -> tuple[int, dict[str, Any]]:
        done = self._weft("doctor", "--data-dir", self.folder, "--json", *words)
        return done.status, {check["check"]: check for check in done.json["checks"]}

    def add_version(self) -> None:
        engine = open_engine(f"sqlite:///{self.folder / 'weft.db'}")
        with writing(engine) as session:
            session.add(Model(name="m"))
            session.flush()
            session.add(
                Version(
                    model_id=1,
                    number=1,
                    weights_digest=SHA,
                    blob=SHA,
                    size_bytes=len(WEIGHTS),
                    schema={},
                    schema_digest=SHA,
                    source="uploaded",
                )
            )
        engine.dispose()

    def add(self, row: Any) -> None:
        engine = open_engine(f"sqlite:///{self.folder / 'weft.db'}")
        with writing(engine) as session:
            session.add(row)
        engine.dispose()


@pytest.fixture
def doctor(
    weft: Any, tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch
) -> Doctor:
    folder = tmp_path / "server"
    folder.mkdir(mode=0o700)
    (folder / "weft.db").write_bytes(migrated_database.read_bytes())
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WEFT_JOBS_AT_ONCE", "0")  # else each test imports torch in a process
    monkeypatch.setenv("WEFT_PORT", "9")
    return Doctor(weft, folder)


def test_all_is_well(doctor: Doctor) -> None:
    status, checks = doctor("--full")
    assert status == 0
    assert {check["state"] for check in checks.values()} == {"ok"}


def test_the_table_says_what_to_do(doctor: Doctor, weft: Any, monkeypatch: Any) -> None:
    monkeypatch.delenv("WEFT_ADMIN_KEY")
    monkeypatch.setenv("WEFT_REQUIRE_KEYS", "false")
    done = weft("doctor", "--data-dir", doctor.folder)
    assert done.status == 1
    assert "Unset WEFT_REQUIRE_KEYS." in done.out


@pytest.mark.parametrize(
    ("value", "state"), [("", "ok"), ("changeme", "fail"), ("short-1234", "warn")]
)
def test_secrets(doctor: Doctor, monkeypatch: Any, value: str, state: str) -> None:
    monkeypatch.setenv("WEFT_ADMIN_KEY", value)
    status, checks = doctor()
    assert (status, checks["admin key"]["state"]) == ({"ok": 0, "warn": 1, "fail": 2}[state], state)
    assert not value or value not in str(checks["admin key"])


def test_a_folder_open_to_all(doctor: Doctor) -> None:
    doctor.folder.chmod(0o755)
    assert doctor()[1]["data folder"]["todo"].startswith("chmod")


def test_a_full_disk(doctor: Doctor, monkeypatch: Any) -> None:
    monkeypatch.setattr(findings, "LOW_BYTES", 1 << 60)
    assert doctor()[1]["disk"]["state"] == "warn"
    monkeypatch.setattr(findings, "RESERVE_BYTES", 1 << 60)
    assert doctor()[1]["disk"]["state"] == "fail"


def test_no_database_yet_makes_none(doctor: Doctor) -> None:
    (doctor.folder / "weft.db").unlink()
    status, checks = doctor()
    assert (status, checks["database"]["state"]) == (2, "fail")
    assert not (doctor.folder / "weft.db").exists()


def test_a_damaged_database(doctor: Doctor) -> None:
    (doctor.folder / "weft.db").write_bytes(b"not a database at all" * 1000)
    status, checks = doctor()
    assert status == 2
    assert "[database.damaged]" in checks["database"]["found"]


def test_an_old_schema(doctor: Doctor) -> None:
    with sqlite3.connect(doctor.folder / "weft.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '0001'")
    database.close()
    assert "[database.not_migrated]" in doctor()[1]["database"]["found"]


def test_missing_and_damaged_blobs(doctor: Doctor, tmp_path: Path) -> None:
    doctor.add_version()
    status, checks = doctor()
    assert (status, checks["blobs"]["state"]) == (2, "fail")
    assert SHA in checks["blobs"]["found"]
    store = LocalStore(doctor.folder / "blobs")
    (tmp_path / "source").write_bytes(WEIGHTS)
    store.put(tmp_path / "source")
    assert doctor()[0] == 0
    store.place(SHA).write_bytes(b"other")
    assert doctor()[1]["blob content"]["state"] == "fail"


def test_a_bucket(doctor: Doctor, s3: Service, monkeypatch: Any) -> None:
    for name, value in {**CREDENTIALS, **s3.settings()}.items():
        monkeypatch.setenv(name if name in CREDENTIALS else f"WEFT_{name.upper()}", value)
    assert doctor()[0] == 0
    doctor.add_version()
    assert doctor()[1]["blobs"]["state"] == "fail"
    monkeypatch.setenv("WEFT_BLOBS", "s3://no-such-bucket")
    assert "[blob.missing]" in doctor()[1]["blobs"]["found"]


def test_what_a_dead_server_left(doctor: Doctor) -> None:
    doctor.add(Lease(name="rollouts", holder="gone", until=now() - timedelta(hours=1)))
    status, checks = doctor()
    assert (status, checks["lease"]["state"]) == (1, "warn")
    assert "gone" in checks["lease"]["found"]


def test_a_duty_with_long_pauses_is_not_forgotten_while_a_server_runs(doctor: Doctor) -> None:
    doctor.add(Lease(name="retention", holder="us", until=now() - timedelta(hours=1)))
    doctor.add(Lease(name="rollouts", holder="us", until=now() + timedelta(minutes=1)))
    status, checks = doctor()
    assert (status, checks["leases"]["found"]) == (0, "rollouts")


def test_a_clock_that_went_back(doctor: Doctor) -> None:
    doctor.add(Event(kind="test", at=now() + timedelta(days=1)))
    assert doctor()[1]["clock"]["state"] == "warn"


def test_a_running_server(doctor: Doctor, serve: Any, monkeypatch: Any) -> None:
    running = serve(data_dir=doctor.folder, admin_key=SECRETS["WEFT_ADMIN_KEY"])
    monkeypatch.setenv("WEFT_PORT", running.url.rpartition(":")[2])
    checks = doctor()[1]
    assert checks["server"]["state"] == "ok"
    monkeypatch.setattr(findings, "version", lambda _: "9.9")
    assert "9.9" in doctor()[1]["server"]["found"]
    monkeypatch.setenv("WEFT_PORT", "9")
    status, checks = doctor()
    assert (status, checks["server"]["state"]) == (2, "fail")


def test_a_refinement_can_start(doctor: Doctor, monkeypatch: Any) -> None:
    monkeypatch.setenv("WEFT_JOBS_AT_ONCE", "1")
    assert "torch" in doctor()[1]["refinement"]["found"]
    monkeypatch.setattr(findings.sys, "executable", "/bin/false")
    assert doctor()[1]["refinement"]["state"] == "fail"


def test_nobody_is_left_who_could_make_keys(doctor: Doctor, monkeypatch: Any) -> None:
    from server.auth.first_key import another_key
    from server.auth.keys import revoke_key
    from server.db import open_engine, writing
    from server.settings import load_settings

    engine = open_engine(load_settings(data_dir=doctor.folder).url)
    another_key(engine, "anna")
    monkeypatch.delenv("WEFT_ADMIN_KEY")
    assert doctor()[1]["operators"]["state"] == "ok"
    with writing(engine) as session:
        revoke_key(session, "anna")
    engine.dispose()
    found = doctor()[1]["operators"]
    assert (found["state"], "weft recover-key" in found["todo"]) == ("fail", True)
