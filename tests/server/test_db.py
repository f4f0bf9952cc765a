"""Migrations and transactions, on a real database."""

from __future__ import annotations

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, select, text

from server.db import check_current, downgrade, migrate, open_engine, reading, writing
from server.errors import DatabaseError
from server.tables import Base, Device, Model


@pytest.fixture
def url(empty_database_url):
    return empty_database_url


def test_the_migrations_make_exactly_the_tables(url):
    migrate(url)
    engine = open_engine(url)
    check_current(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_down_and_up_again(url):
    migrate(url)
    downgrade(url, "base")
    engine = open_engine(url)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    with pytest.raises(DatabaseError, match="schema is at nothing") as caught:
        check_current(engine)
    assert caught.value.code == "database.not_migrated"
    engine.dispose()
    migrate(url)
    migrate(url)


@pytest.mark.sqlite("its pragmas")
def test_sqlite_is_set_up_to_survive(url):
    engine = open_engine(url)
    with engine.connect() as connection:
        found = [
            connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    assert found == ["wal", 2, 1, 15_000]
    engine.dispose()


def test_writers_wait_for_each_other(url):
    """Read, then write, many at once: without the early lock some would fail or be lost."""
    migrate(url)
    engine = open_engine(url)
    with writing(engine) as session:
        session.add(Device(id="d", name="d", token_hash="h", generation=0))

    def count() -> None:
        for _ in range(10):
            with writing(engine) as session:
                device = session.get_one(Device, "d")
                device.generation = device.generation + 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(engine) as session:
        assert session.scalar(select(Device.generation)) == 40
    engine.dispose()


def test_an_exception_undoes_the_transaction(url):
    migrate(url)
    engine = open_engine(url)

    def break_off() -> None:
        with writing(engine) as session:
            session.add(Model(name="m"))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    with reading(engine) as session:
        assert session.scalars(select(Model)).all() == []
    engine.dispose()


def test_times_keep_their_zone(url):
    migrate(url)
    engine = open_engine(url)
    with writing(engine) as session:
        session.add(Model(name="m"))
    with reading(engine) as session:
        created = session.scalars(select(Model.created_at)).one()
    assert created.utcoffset().total_seconds() == 0
    engine.dispose()


@pytest.mark.sqlite("a file")
def test_a_file_that_is_no_database_is_named_so(tmp_path):
    (tmp_path / "weft.db").write_bytes(b"not a database, but long enough to be read" * 50)
    with pytest.raises(DatabaseError) as caught:
        migrate(f"sqlite:///{tmp_path / 'weft.db'}")
    assert caught.value.code == "database.damaged"
