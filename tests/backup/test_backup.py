"""Taking, checking and restoring: what goes in comes out, whatever the database is."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, text

from server.backup import take as taking
from server.backup.folder import BackupFolder
from server.backup.restore import restore
from server.backup.rows import tables
from server.backup.take import take
from server.backup.verify import verify
from server.db import reading, writing
from server.errors import BadBackup, BlobError, DatabaseError
from server.settings import Settings
from server.storage import open_store
from server.storage.local import LocalStore
from server.tables import (
    Assignment,
    Device,
    DeviceModel,
    Event,
    Installation,
    Lease,
    Model,
    Refinement,
    Rollout,
    Version,
    now,
)
from shared.errors import WeftError
from tests.backup.conftest import PACKAGE, STATISTICS, WEIGHTS, fill, keep, sha

NAMED = {sha(data) for data in (*WEIGHTS, PACKAGE, STATISTICS)}

#: What a restore changes on purpose, by table.
CHANGED = {
    "assignments": {"state", "package_id", "offered_at", "admitted_at", "attempts"},
    "device_models": {"state"},
    "events": {"transaction"},
    "refinements": {"state", "worker", "heartbeat_at"},
    "rollouts": {"due_at"},
}


@pytest.fixture
def folder(tmp_path: Any) -> BackupFolder:
    return BackupFolder(tmp_path / "backup")


def quiet(_: int) -> None:
    pass


def rows(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """All rows, without what a restore changes."""
    found = {}
    with engine.connect() as connection:
        for table in tables():
            query = select(table).order_by(*table.primary_key.columns)
            left_out = CHANGED.get(table.name, set())
            found[table.name] = [
                {k: v for k, v in row.items() if k not in left_out}
                for row in connection.execute(query).mappings()
            ]
    return found


def code_of(error: pytest.ExceptionInfo[WeftError]) -> str:
    return error.value.code


class Roundtrip:
    """A backup of `engine`, restored into `target`."""

    def __init__(self, engine: Engine, blobs: Any, target: Engine, folder: Any, into: Any) -> None:
        self.before = rows(engine)
        self.manifest = take(engine, blobs, folder, quiet)
        verify(folder, quiet)
        restore(folder, target, into, quiet)
        self.after = rows(target)

    def check(self, store: Any) -> None:
        told = self.after["events"].pop()
        assert told["kind"] == "installation.restored"
        assert self.after == self.before
        assert set(store.kept_before(now() + timedelta(hours=1))) == NAMED


def test_what_was_backed_up_is_restored(engine, blobs, empty, folder, tmp_path):
    into = LocalStore(tmp_path / "into")
    done = Roundtrip(engine, blobs, empty, folder, into)
    done.check(into)
    assert done.manifest.tables["devices"].rows == 2
    assert (done.manifest.blobs, done.manifest.blob_bytes) == (
        4,
        sum(map(len, (*WEIGHTS, PACKAGE, STATISTICS))),
    )


@pytest.mark.postgres("from one kind of database to the other")
def test_from_postgresql_to_sqlite_and_back(engine, blobs, sqlite, empty, tmp_path):
    into = LocalStore(tmp_path / "into")
    done = Roundtrip(engine, blobs, sqlite, BackupFolder(tmp_path / "one"), into)
    done.check(into)
    second = LocalStore(tmp_path / "second")
    back = Roundtrip(sqlite, into, empty, BackupFolder(tmp_path / "two"), second)
    back.check(second)


def test_from_a_folder_to_a_bucket(engine, blobs, empty, folder, tmp_path, s3):
    into = open_store(Settings(data_dir=tmp_path / "data", **s3.settings()), cached=False)
    Roundtrip(engine, blobs, empty, folder, into).check(into)
    again = BackupFolder(tmp_path / "again")
    take(empty, into, again, quiet)
    verify(again, quiet)


def test_ids_go_on_far_ahead(engine, blobs, empty, folder, tmp_path):
    Roundtrip(engine, blobs, empty, folder, LocalStore(tmp_path / "into"))
    with writing(empty) as session:
        later = [Model(name="n"), Rollout(model_id=1, version_id=1), Event(kind="test.later")]
        session.add_all(later)
        session.flush()
        later.append(Assignment(rollout_id=later[1].id, device_id="d-1", model_id=1))
        session.add(later[-1])
        session.flush()
        assert [row.id > 10_000_000 for row in later] == [True] * 4
        assert later[2].id > 1_000_000_000


def test_the_present_is_another_one(engine, blobs, empty, folder, tmp_path):
    with reading(engine) as session:
        epoch = session.scalar(select(Installation.epoch))
        offered = session.get_one(Assignment, 2).offered_at
    assert offered is not None
    Roundtrip(engine, blobs, empty, folder, LocalStore(tmp_path / "into"))
    with reading(empty) as session:
        assert session.scalar(select(Installation.epoch)) != epoch
        assert session.scalars(select(Lease)).all() == []
        assert set(session.scalars(select(Event.transaction).where(Event.id == 1))) == {0}
        job = session.get_one(Refinement, 1)
        assert (job.state, job.worker, job.heartbeat_at) == ("queued", None, None)
        committed, still = session.get_one(Assignment, 1), session.get_one(Assignment, 2)
        assert committed.state == "committed"
        assert (still.state, still.offered_at, still.package_id) == ("idle", None, None)
        assert session.get_one(Rollout, 1).due_at is not None
        assert session.get_one(Device, "d-1").generation == 7
        assert set(session.scalars(select(DeviceModel.state))) == {"unknown"}


def test_a_second_backup_copies_only_what_is_new(engine, blobs, folder):
    copied: list[int] = []
    first = take(engine, blobs, folder, copied.append)
    assert sum(copied) == first.blob_bytes
    copied.clear()
    with writing(engine) as session:
        session.get_one(Version, 1).removed_at = now()
        session.get_one(Version, 2).blob = sha(b"new weights")
    keep(blobs, b"new weights")
    second = take(engine, blobs, folder, copied.append)
    assert copied == [len(b"new weights")]
    verify(folder, quiet)
    assert [path.name for path in folder.root.glob("tables-*")] == [second.folder]
    kept = set(folder.blobs.kept_before(now() + timedelta(hours=1)))
    assert kept == {sha(b"new weights"), sha(PACKAGE), sha(STATISTICS)}


def test_an_interrupted_backup_is_recognised_and_made_whole(engine, blobs, folder, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(BackupFolder, "finish", die)
        with pytest.raises(Killed):
            take(engine, blobs, folder, quiet)
    with pytest.raises(BadBackup, match="interrupted") as caught:
        folder.load()
    assert code_of(caught) == "backup.not_found"
    copied: list[int] = []
    take(engine, blobs, folder, copied.append)
    assert copied == []
    verify(folder, quiet)


def test_an_interrupted_second_backup_leaves_the_first(engine, blobs, folder):
    first = take(engine, blobs, folder, quiet)
    with writing(engine) as session:
        session.get_one(Version, 2).blob = sha(b"nowhere")
    with pytest.raises(BlobError) as caught:
        take(engine, blobs, folder, quiet)
    assert code_of(caught) == "blob.missing"
    assert sha(b"nowhere") in caught.value.message
    assert verify(folder, quiet) == first


def test_what_retention_removes_meanwhile_is_left_out(engine, blobs, folder, monkeypatch):
    copy = taking._copy_all

    def late(source, target, named, advance):
        if sha(WEIGHTS[0]) in named:  # after the snapshot, before its blobs are copied
            with writing(engine) as session:
                session.get_one(Version, 1).removed_at = now()
            blobs.delete(sha(WEIGHTS[0]))
        return copy(source, target, named, advance)

    monkeypatch.setattr(taking, "_copy_all", late)
    assert take(engine, blobs, folder, quiet).blobs == 3
    verify(folder, quiet)


def test_a_damaged_blob_is_not_backed_up(engine, blobs, folder):
    blobs.place(sha(PACKAGE)).write_bytes(b"other bytes")
    with pytest.raises(BlobError) as caught:
        take(engine, blobs, folder, quiet)
    assert code_of(caught) == "blob.damaged"


@pytest.mark.parametrize("harm", ["a table", "a missing table", "a blob", "a missing blob"])
def test_damage_is_found_and_named(engine, blobs, empty, folder, tmp_path, harm):
    manifest = take(engine, blobs, folder, quiet)
    path = folder.table(manifest.folder, "devices")
    blob = folder.blobs.place(sha(PACKAGE))
    if harm == "a table":
        path.write_text(path.read_text().replace("lamp", "lump"))
    elif harm == "a blob":
        blob.write_bytes(bytes(len(PACKAGE)))
    else:
        (path if "table" in harm else blob).unlink()
    with pytest.raises(BadBackup) as caught:
        verify(folder, quiet)
    assert code_of(caught) == "backup.damaged"
    assert ("devices" if "table" in harm else sha(PACKAGE)) in caught.value.message
    with pytest.raises(WeftError):
        restore(folder, empty, LocalStore(tmp_path / "into"), quiet)
    assert not any(rows(empty).values())


def test_only_an_empty_database_is_restored_into(engine, blobs, empty, folder, tmp_path):
    take(engine, blobs, folder, quiet)
    with pytest.raises(BadBackup) as caught:
        restore(folder, engine, blobs, quiet)
    assert code_of(caught) == "backup.not_empty"
    with writing(empty) as session:
        session.add(Lease(name="x", holder="server-1", until=now() + timedelta(minutes=1)))
    with pytest.raises(DatabaseError, match="server-1"):
        restore(folder, empty, LocalStore(tmp_path / "into"), quiet)


def test_an_interrupted_restore_is_repeated(engine, blobs, empty, folder, tmp_path, monkeypatch):
    take(engine, blobs, folder, quiet)
    into = LocalStore(tmp_path / "into")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("server.backup.afterwards.adjust", die)
        with pytest.raises(KeyboardInterrupt):
            restore(folder, empty, into, quiet)
    assert not any(rows(empty).values())
    copied: list[int] = []
    restore(folder, empty, into, copied.append)
    assert copied == []
    assert len(rows(empty)["devices"]) == 2


def test_other_formats_and_schemas_are_refused(engine, blobs, empty, folder, tmp_path):
    take(engine, blobs, folder, quiet)
    path = folder.root / "backup.json"
    told = json.loads(path.read_text())
    for change, code in (
        ({"schema_revision": "0001"}, "backup.wrong_schema"),
        ({"format": 2}, "backup.unknown_format"),
        ({"tables": 3}, "backup.damaged"),
        ({"folder": "../elsewhere"}, "backup.damaged"),
    ):
        path.write_text(json.dumps(told | change))
        with pytest.raises(BadBackup) as caught:
            restore(folder, empty, LocalStore(tmp_path / "into"), quiet)
        assert code_of(caught) == code


def test_one_process_at_a_time_works_in_a_folder(engine, blobs, folder):
    with folder.locked(), pytest.raises(BadBackup) as caught:
        take(engine, blobs, folder, quiet)
    assert code_of(caught) == "backup.busy"


def test_rows_are_of_one_moment(engine, blobs, folder, monkeypatch):
    seen = []
    dump = taking.dump_table

    def slow(connection, table, path):
        if table.name == "devices":  # models have been read, versions not
            with writing(engine) as session:
                session.add(Model(name="late"))
                session.execute(text("DELETE FROM events"))
            seen.append(table.name)
        return dump(connection, table, path)

    monkeypatch.setattr(taking, "dump_table", slow)
    manifest = take(engine, blobs, folder, quiet)
    assert seen == ["devices"]
    assert (manifest.tables["models"].rows, manifest.tables["events"].rows) == (1, 1)


def test_a_large_table_goes_in_batches(empty, blobs, folder, sqlite, tmp_path):
    fill(empty)
    with writing(empty) as session:
        session.add_all(
            Device(id=f"x-{n}", name=f"n{n}", token_hash=f"{n:064}") for n in range(2500)
        )
    Roundtrip(empty, blobs, sqlite, folder, LocalStore(tmp_path / "into"))
    with reading(sqlite) as session:
        assert len(session.scalars(select(Device.id)).all()) == 2502
